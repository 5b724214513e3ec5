"""Convolutions over one, two and three dimensions."""

from honed._lib import _core, torch
from honed.ops._conv import finished, flat, geometry, torchs_conv
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling
from honed.ops._library import ACTIVATIONS

if torch is not None:
    import honed.ops._torch.conv

_Packed = _core.PackedConvWeight
_run, _direct = function("conv"), direct("conv")
_run_packed, _direct_packed = _core.conv_packed, direct("conv_packed")


def _conv(n, input, weight, bias, stride, padding, dilation, groups, border, activation, residual, exact):
    op = f"conv{n}d"
    g = geometry(op, n, weight.shape[2:], stride, padding, dilation, groups, border)
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: activation is {activation!r}, expected {', '.join(ACTIVATIONS)}")
    numbers = (*flat(g), ACTIVATIONS.index(activation), exact)
    if not is_compiling():
        y = _direct(input, weight, bias, residual, *numbers)
        if y is not None:
            return y
    plain = lambda x, w, b: finished(torchs_conv(x, w, b, g), activation, residual)  # noqa: E731
    return fall_back(op, plain, input, weight, bias)


def conv1d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    padding_mode="zeros",
    activation="none",
    residual=None,
    exact=False,
):
    """:func:`conv2d` over one dimension: input ``(N, C, L)`` or ``(C, L)``, weight ``(O, C / groups, K)``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv1d.html
    """
    return _conv(
        1, input, weight, bias, stride, padding, dilation, groups, padding_mode, activation, residual, exact
    )


def conv2d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    padding_mode="zeros",
    activation="none",
    residual=None,
    exact=False,
):
    """``y[o, p] = activation(sum_{c,k} w[o, c, k] x[c, p stride + k dilation - padding] + b[o] + residual[o, p])``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv2d.html
    """
    return _conv(
        2, input, weight, bias, stride, padding, dilation, groups, padding_mode, activation, residual, exact
    )


def conv3d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    padding_mode="zeros",
    activation="none",
    residual=None,
    exact=False,
):
    """:func:`conv2d` over three dimensions: input ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv3d.html
    """
    return _conv(
        3, input, weight, bias, stride, padding, dilation, groups, padding_mode, activation, residual, exact
    )

"""Transposed convolutions over one, two and three dimensions."""

from honed._lib import torch
from honed.ops._conv import finished, per_dimension
from honed.ops._dispatch import fall_back, function
from honed.ops._library import ACTIVATIONS

if torch is not None:
    from honed.ops import _product
    from honed.ops._torch.conv_transpose import transposed

_run = function("conv_transpose")


def _conv_transpose(
    n, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual
):
    op = f"conv_transpose{n}d"
    stride = per_dimension(op, "stride", stride, n, 1)
    padding = per_dimension(op, "padding", padding, n, 0)
    more = per_dimension(op, "output_padding", output_padding, n, 0)
    dilation = per_dimension(op, "dilation", dilation, n, 1)
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: activation is {activation!r}, expected {', '.join(ACTIVATIONS)}")
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
        raise ValueError(f"{op}: output_padding is {more}, expected less than stride or dilation")
    if len(input.shape) not in (n + 1, n + 2):
        raise ValueError(
            f"{op}: input has shape {tuple(input.shape)}, expected {n + 1} or {n + 2} dimensions"
        )
    if len(input.shape) == n + 1:
        residual = None if residual is None else residual[None]
        return _conv_transpose(
            n, input[None], weight, bias, stride, padding, more, groups, dilation, activation, residual
        )[0]
    size = tuple(
        (count - 1) * s - 2 * p + d * (k - 1) + 1 + m
        for count, s, p, d, k, m in zip(
            input.shape[2:], stride, padding, dilation, weight.shape[2:], more, strict=True
        )
    )
    absent = (1,) * (3 - n)
    padded = ((0,) * (3 - n)) + padding
    geometry = (*absent, *stride, *padded)
    rest = (*absent, *dilation, *absent, *size, groups, ACTIVATIONS.index(activation), False)
    if torch is None or not isinstance(input, torch.Tensor):
        return _run(input, weight, bias, residual, *geometry, *rest)
    dtype = _product.autocast_dtype()
    if dtype is not None:
        input, weight, bias = (_product.cast(t, dtype) for t in (input, weight, bias))
        with torch.autocast("cpu", enabled=False):
            y = _conv_transpose(n, input, weight, bias, stride, padding, more, groups, dilation, "none", None)
        return finished(y, activation, residual)
    how = _product.answer(input, weight, bias, residual)
    if how == 1 and (activation in ("none", "relu", "relu6") or input.dtype != torch.float64):
        return _run(input, weight, bias, residual, *geometry, *rest)
    if how:
        numbers = (*geometry, *padded, *absent, *dilation, groups, 0, False)
        y = transposed(input, weight, bias, numbers, size)
        return finished(y, activation, residual)
    own = getattr(torch.nn.functional, op)

    def plain(x, w, b):
        y = own(x, w, b, stride, padding, more, groups, dilation)
        return finished(y, activation, residual)

    return fall_back(op, plain, input, weight, bias)


def conv_transpose1d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    activation="none",
    residual=None,
):
    """:func:`conv_transpose2d` over one dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose1d.html
    """
    return _conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual
    )


def conv_transpose2d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    activation="none",
    residual=None,
):
    """The transposed convolution: what :func:`conv2d` maps ``y`` to, mapped back.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose2d.html
    """
    return _conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual
    )


def conv_transpose3d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    activation="none",
    residual=None,
):
    """:func:`conv_transpose2d` over three dimensions.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose3d.html
    """
    return _conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual
    )

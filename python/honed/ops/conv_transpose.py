"""Transposed convolutions over one, two and three dimensions."""

from honed._lib import torch
from honed.ops._activations import ACTIVATIONS
from honed.ops._conv import finished, per_dimension
from honed.ops._dispatch import fall_back, function

if torch is not None:
    from honed.ops import _product
    from honed.ops._torch.conv_transpose import transposed

_run = function("conv_transpose")


def _conv_transpose(
    n, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual, exact
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
    if len(weight.shape) != n + 2:
        raise ValueError(f"{op}: weight has shape {tuple(weight.shape)}, expected {n + 2} dimensions")
    if len(input.shape) == n + 1:
        residual = None if residual is None else residual[None]
        return _conv_transpose(
            n, input[None], weight, bias, stride, padding, more, groups, dilation, activation, residual, exact
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
    rest = (*absent, *dilation, *absent, *size, groups, ACTIVATIONS.index(activation), exact)
    if torch is None or not isinstance(input, torch.Tensor):
        return _run(input, weight, bias, residual, *geometry, *rest)
    dtype = _product.autocast_dtype()
    if dtype is not None:
        input, weight, bias = (_product.cast(t, dtype) for t in (input, weight, bias))
        with torch.autocast("cpu", enabled=False):
            y = _conv_transpose(
                n, input, weight, bias, stride, padding, more, groups, dilation, "none", None, exact
            )
        return finished(y, activation, residual)
    how = _product.answer(input, weight, bias, residual)
    if how == 1 and (activation in ("none", "relu", "relu6") or input.dtype != torch.float64):
        return _run(input, weight, bias, residual, *geometry, *rest)
    if how:
        numbers = (*geometry, *padded, *absent, *dilation, groups, 0, exact)
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
    exact=False,
):
    """:func:`conv_transpose2d` over one dimension: input ``(N, C, L)``, weight ``(C, O / groups, K)``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose1d.html
    """
    return _conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual, exact
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
    exact=False,
):
    """``y[q] = activation(sum x[p] w[k] + bias + residual[q])`` over the positions p and elements k of the
    kernel with ``p stride + k dilation - padding = q``, and over channels: the gradient of :func:`conv2d`'s
    input.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, float64, float32, float16 or bfloat16, any strides; a torch
            tensor or NumPy array.
        weight: ``(C, O / groups, KH, KW)`` of the input's type.
        bias: ``(O,)``.
        stride, padding, output_padding, groups, dilation: as torch's; ``output_padding`` is less than
            stride or dilation.
        activation: ``none``, ``relu``, ``relu6``, ``gelu``, ``gelu_tanh`` or ``silu``.
        residual: like the output; added before the activation.
        exact: no way that adds inputs to each other before it multiplies (Winograd).

    Returns:
        ``(N, O, H', W')``, ``H' = (H - 1) stride - 2 padding + dilation (KH - 1) + 1 + output_padding``, of
        the input's type and layout (contiguous or channels_last). Sums are float32, float64 for float64.

    Gradients reach input, weight, bias and residual, any number of times.

    Raises:
        ValueError: shapes or numbers that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose2d.html

    >>> import numpy as np
    >>> x = np.array([[[1.0, 2.0]]], dtype=np.float32)
    >>> conv_transpose2d(x, np.ones((1, 1, 2, 2), dtype=np.float32), stride=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]
    """
    return _conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual, exact
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
    exact=False,
):
    """:func:`conv_transpose2d` over three dimensions: input ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose3d.html
    """
    return _conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual, exact
    )

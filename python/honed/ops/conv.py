"""Convolutions over one, two and three dimensions."""

from honed._lib import _core, torch
from honed.ops._conv import finished, numbers, torchs_conv
from honed.ops._dispatch import direct, fall_back, function, is_compiling

if torch is not None:
    from honed.ops import _product
    from honed.ops._torch.conv import conv as differentiable

_Packed = _core.PackedConvWeight
_run, _direct = function("conv"), direct("conv")
_run_packed = direct("conv_packed")


def _conv(n, input, weight, bias, stride, padding, dilation, groups, border, activation, residual, exact):
    op = f"conv{n}d"
    packed = isinstance(weight, _Packed)
    kernel = weight.kernel_size[3 - n :] if packed else weight.shape[2:]
    g, sizes, (place, act) = numbers(op, n, kernel, stride, padding, dilation, groups, border, activation)
    if len(input.shape) == n + 1:
        residual = None if residual is None else residual[None]
        rest = stride, padding, dilation, groups, border, activation, residual, exact
        return _conv(n, input[None], weight, bias, *rest)[0]
    if len(input.shape) != n + 2:
        raise ValueError(
            f"{op}: input has shape {tuple(input.shape)}, expected {n + 1} or {n + 2} dimensions"
        )
    if packed:
        return _packed(op, input, weight, bias, sizes, place, act, residual, exact)
    arrays = torch is None or not isinstance(input, torch.Tensor)
    dtype = None if arrays else _product.autocast_dtype()
    if dtype is None and not is_compiling() and (arrays or act < 3 or not _is_wide(input)):
        y = _direct(input, weight, bias, residual, *sizes, groups, place, act, exact)
        if y is not None:
            return y
    if dtype is not None:
        input, weight, bias = (_product.cast(t, dtype) for t in (input, weight, bias))
        rest = stride, padding, dilation, groups, border, "none", None, exact
        with torch.autocast("cpu", enabled=False):
            y = _conv(n, input, weight, bias, *rest)
        return finished(y, activation, residual)
    how = _product.answer(input, weight, bias, residual)
    if how == 1 and (act < 3 or not _is_wide(input)):
        return _run(input, weight, bias, residual, *sizes, groups, place, act, exact)
    if how:
        y = differentiable(input, weight, bias, (*sizes, groups, place, exact))
        return finished(y, activation, residual)
    plain = lambda x, w, b: finished(torchs_conv(x, w, b, g), activation, residual)  # noqa: E731
    return fall_back(op, plain, input, weight, bias)


def _is_wide(input):
    """Whether the activation of a float64 result is torch's to make (beyond none, relu and relu6)."""
    return str(input.dtype).endswith("float64")


def _packed(op, input, weight, bias, sizes, place, act, residual, exact):
    if bias is not None:
        raise ValueError(
            f"{op}: got a bias beside a packed weight, expected it in quantize_weight(..., bias=)"
        )
    if is_compiling():
        return torch.compiler.disable(_packed)(op, input, weight, bias, sizes, place, act, residual, exact)
    y = _run_packed(input, weight, residual, *sizes, place, act, exact)
    if y is None:
        raise TypeError(
            f"{op}: a packed weight takes plain CPU tensors of one type, float32, float16 or bfloat16, "
            f"without gradients, got a {type(input).__name__} of {input.dtype}"
        )
    return y


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

    >>> import numpy as np
    >>> x = np.array([[[1.0, 2.0, 4.0]]], dtype=np.float32)
    >>> conv1d(x, np.ones((1, 1, 2), dtype=np.float32)).tolist()
    [[[3.0, 6.0]]]
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
    """``y[o, p] = activation(sum_{c,k} w[o, c, k] x[c, p stride + k dilation - padding] + b[o] + r[o, p])``.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, float64, float32, float16 or bfloat16, any strides; a torch
            tensor or NumPy array.
        weight: ``(O, C / groups, KH, KW)`` of the input's type, or packed by
            :func:`honed.ops.quantize_weight`, which then holds the bias and the groups too.
        bias: ``(O,)``, only with a plain weight.
        stride, dilation: a number, or one a dimension.
        padding: a number, one a dimension, a pair ``(before, after)`` a dimension, ``"valid"`` (none) or
            ``"same"`` (as many outputs as inputs; stride 1).
        groups: into which the channels are split; C of them is a depthwise convolution.
        padding_mode: what is outside of the input: ``zeros``, its mirror image (``reflect``), the nearest
            element (``replicate``) or the other end (``circular``). Read where it is needed: no padded copy.
        activation: ``none``, ``relu``, ``relu6``, ``gelu``, ``gelu_tanh`` or ``silu``.
        residual: ``r``, like the output; added before the activation.
        exact: never by Winograd's products, which 3 x 3 kernels of stride 1 otherwise take where they are
            faster. They multiply sums of inputs: the largest error is a few times that of the plain sums
            (``csrc/ops/_winograd.h``).

    Returns:
        ``(N, O, H', W')`` of the input's type, in ``torch.channels_last`` where the input is. Sums are
        float32, float64 for float64. Memory beyond the result: the packed weight and a few MB.

    Gradients reach input, weight, bias and residual, any number of times; a packed weight has none.
    ``torch.autocast`` casts as it does torch's own. Tensors of other types or devices go to torch's own op.

    Raises:
        ValueError: shapes and numbers that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv2d.html,
    https://arxiv.org/abs/1509.09308 (Winograd's products)

    >>> import numpy as np
    >>> x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> conv2d(x, np.ones((1, 1, 2, 2), dtype=np.float32), activation="relu6").tolist()
    [[[[6.0, 6.0], [6.0, 6.0]]]]
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

    >>> import numpy as np
    >>> conv3d(np.ones((1, 1, 2, 2, 2), dtype=np.float32), np.ones((1, 1, 2, 2, 2), dtype=np.float32)).item()
    8.0
    """
    return _conv(
        3, input, weight, bias, stride, padding, dilation, groups, padding_mode, activation, residual, exact
    )

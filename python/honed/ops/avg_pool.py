"""Means of windows."""

from honed._lib import torch
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling
from honed.ops._pool import window

if torch is not None:
    from honed.ops._torch.avg_pool import AvgPool

_run, _direct = function("avg_pool"), direct("avg_pool")


def _avg_pool(dims, input, kernel_size, stride, padding, ceil_mode, count_include_pad, *divisor):
    name = f"avg_pool{dims}d"
    given = divisor[0] if divisor else None
    if given is not None and (isinstance(given, bool) or not hasattr(given, "__index__") or int(given) == 0):
        raise ValueError(f"{name}: divisor_override is {given!r}, expected a number other than 0")
    options = (
        *window(name, dims, kernel_size, stride, padding)[:6],
        bool(ceil_mode),
        bool(count_include_pad),
        0 if given is None else int(given),
    )
    if not is_compiling():
        out = _direct(input, dims, *options)
        if out is not None:
            return out
    how = answer(input)
    if not how:
        own = getattr(torch.nn.functional, name)
        step = kernel_size if stride is None else stride
        return fall_back(
            name, own, input, kernel_size, step, padding, bool(ceil_mode), bool(count_include_pad), *divisor
        )
    return _run(input, dims, *options) if how == 1 else AvgPool.apply(input, dims, options)


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """``y[c, o] = mean over k of x[c, o stride - padding + k]``, k from 0 to kernel_size - 1.

    Args:
        input: ``(B, C, L)`` or ``(C, L)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy
            array.
        kernel_size: a number, or a tuple of it, as the next two.
        stride: from a window to the next; ``None`` is kernel_size.
        padding: zeros at both ends, at most half of kernel_size.
        ceil_mode: a last window may begin inside and reach beyond the end; it is a mean of what is there.
        count_include_pad: whether zeros of the padding count in a mean.

    Returns:
        The result, in the layout of ``input`` (contiguous, or with the channels last in memory). Sums are
        float32, float64 for float64. The gradient of an element is the sum of those of its windows, each over
        its size.

    Raises:
        ValueError: sizes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.avg_pool1d.html

    >>> import numpy as np
    >>> avg_pool1d(np.array([[1.0, 5.0, 2.0, 3.0]], dtype=np.float32), 2).tolist()
    [[3.0, 2.5]]
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """``y[c, o, p] = sum over k, l of x[c, o stride - padding + k, p stride - padding + l] / size``.

    Args:
        input: ``(B, C, H, W)`` or ``(C, H, W)``, float64, float32, float16 or bfloat16; a torch tensor or
            NumPy array.
        kernel_size: a number, or one for height and one for width, as the next two.
        stride: from a window to the next; ``None`` is kernel_size.
        padding: zeros at all sides, at most half of kernel_size.
        ceil_mode: a last window may begin inside and reach beyond the end; what is there is its size.
        count_include_pad: whether zeros of the padding count in the size of a window.
        divisor_override: the size by which sums are divided, ``None`` for that of the window.

    Returns:
        The result, in the layout of ``input`` (contiguous or torch.channels_last). Sums are float32, float64
        for float64. The gradient of an element is the sum of those of its windows, each over its size.

    Raises:
        ValueError: sizes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.avg_pool2d.html

    >>> import numpy as np
    >>> avg_pool2d(np.array([[[1.0, 5.0], [2.0, 4.0]]], dtype=np.float32), 2).tolist()
    [[[3.0]]]
    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)

"""Largest elements of windows."""

from honed._lib import torch
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling
from honed.ops._pool import window

if torch is not None:
    from honed.ops._torch.max_pool import MaxPool

_run, _direct = function("max_pool"), direct("max_pool")


def _max_pool(dims, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    name = f"max_pool{dims}d"
    options = (*window(name, dims, kernel_size, stride, padding, dilation), bool(ceil_mode))
    found = None if is_compiling() else _direct(input, dims, *options, False, bool(return_indices))
    if found is None:
        how = answer(input)
        if not how:
            own = getattr(torch.nn.functional, name)
            return fall_back(
                name, own, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
            )
        if how == 1:
            found = _run(input, dims, *options, False, bool(return_indices))
        else:
            out, indices = MaxPool.apply(input, dims, options, bool(return_indices))
            return (out, indices) if return_indices else out
    return (found[0], found[2]) if return_indices else found[0]


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """``y[c, o] = max over k of x[c, o stride - padding + k dilation]``, k from 0 to kernel_size - 1.

    Args:
        input: ``(B, C, L)`` or ``(C, L)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy
            array.
        kernel_size: a number, or a tuple of it, as the next three.
        stride: from a window to the next; ``None`` is kernel_size.
        padding: positions at both ends that are not seen, at most half of kernel_size.
        dilation: from an element of a window to the next.
        ceil_mode: a last window may begin inside and reach beyond the end.
        return_indices: also where in the row each element was found.

    Returns:
        The result, in the layout of ``input`` (contiguous, or with the channels last in memory); with
        ``return_indices`` a pair of it and int64 indices. A NaN is larger than all. The gradient of each
        result goes to the first of its window's largest elements, or the last NaN.

    Raises:
        ValueError: sizes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool1d.html

    >>> import numpy as np
    >>> max_pool1d(np.array([[1.0, 5.0, 2.0, 3.0]], dtype=np.float32), 2).tolist()
    [[5.0, 3.0]]
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """``y[c, o, p] = max over k, l of x[c, o stride - padding + k dilation, p stride - padding + l dilation]``.

    Args:
        input: ``(B, C, H, W)`` or ``(C, H, W)``, float64, float32, float16 or bfloat16; a torch tensor or
            NumPy array.
        kernel_size: a number, or one for height and one for width, as the next three.
        stride: from a window to the next; ``None`` is kernel_size.
        padding: positions at all sides that are not seen, at most half of the kernel (with the holes of a
            dilation).
        dilation: from an element of a window to the next.
        ceil_mode: a last window may begin inside and reach beyond the end.
        return_indices: also where in its plane each element was found, ``row W + column``.

    Returns:
        The result, in the layout of ``input`` (contiguous or torch.channels_last); with ``return_indices`` a
        pair of it and int64 indices. A NaN is larger than all. The gradient of each result goes to the first
        of its window's largest elements, or the last NaN.

    Raises:
        ValueError: sizes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool2d.html

    >>> import numpy as np
    >>> x = np.array([[[1.0, 5.0, 2.0], [0.0, 3.0, 7.0], [4.0, 1.0, 1.0]]], dtype=np.float32)
    >>> y, indices = max_pool2d(x, 2, stride=1, return_indices=True)
    >>> y.tolist(), indices.tolist()
    ([[[5.0, 7.0], [4.0, 7.0]]], [[[1, 5], [6, 5]]])
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)

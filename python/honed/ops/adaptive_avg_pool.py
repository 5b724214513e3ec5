"""Means of windows that cover the input."""

from honed._lib import torch
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling
from honed.ops._pool import sizes

if torch is not None:
    from honed.ops._torch.adaptive_avg_pool import AdaptiveAvgPool

_run, _direct = function("adaptive_avg_pool"), direct("adaptive_avg_pool")


def _adaptive_avg_pool(dims, input, h, w):
    if not is_compiling():
        out = _direct(input, dims, h, w)
        if out is not None:
            return out
    how = answer(input)
    if not how:
        name = f"adaptive_avg_pool{dims}d"
        return fall_back(name, getattr(torch.nn.functional, name), input, (h, w)[2 - dims :])
    return _run(input, dims, h, w) if how == 1 else AdaptiveAvgPool.apply(input, dims, h, w)


def adaptive_avg_pool1d(input, output_size):
    """``y[c, o] = mean of x[c, i]`` over i from ``floor(o L / O)`` to ``ceil((o + 1) L / O)``.

    Args:
        input: ``(B, C, L)`` or ``(C, L)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy
            array.
        output_size: O, a number or a tuple of it.

    Returns:
        The result, in the layout of ``input`` (contiguous, or with the channels last in memory). Sums are
        float32, float64 for float64. The gradient of an element is the sum of those of its windows, each over
        its size.

    Raises:
        ValueError: sizes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_avg_pool1d.html

    >>> import numpy as np
    >>> adaptive_avg_pool1d(np.array([[1.0, 5.0, 3.0]], dtype=np.float32), 2).tolist()
    [[3.0, 4.0]]
    """
    return _adaptive_avg_pool(1, input, *sizes("adaptive_avg_pool1d", "output_size", output_size, 1, least=1))


def adaptive_avg_pool2d(input, output_size):
    """``y[c, o, p] = mean of x[c, i, j]``, i from ``floor(o H / O)`` to ``ceil((o + 1) H / O)``, j likewise.

    Args:
        input: ``(B, C, H, W)`` or ``(C, H, W)``, float64, float32, float16 or bfloat16; a torch tensor or
            NumPy array.
        output_size: a number, or O and that of the width, each of which may be ``None``, that of the input.

    Returns:
        The result, in the layout of ``input`` (contiguous or torch.channels_last). Sums are float32, float64
        for float64. The gradient of an element is the sum of those of its windows, each over its size.

    Raises:
        ValueError: sizes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_avg_pool2d.html

    >>> import numpy as np
    >>> x = np.array([[[1.0, 5.0], [2.0, 4.0]]], dtype=np.float32)
    >>> adaptive_avg_pool2d(x, 1).tolist(), adaptive_avg_pool2d(x, (None, 1)).tolist()
    ([[[3.0]]], [[[3.0], [3.0]]])
    """
    if type(output_size) is not int:
        if isinstance(output_size, (tuple, list)):
            if len(output_size) == 2:
                given = zip(output_size, input.shape[-2:], strict=True)
                output_size = tuple(size if own is None else own for own, size in given)
            else:
                raise ValueError(
                    f"adaptive_avg_pool2d: output_size is {output_size!r}, "
                    "expected a number or a tuple of two"
                )
        return _adaptive_avg_pool(2, input, *sizes("adaptive_avg_pool2d", "output_size", output_size, 2))
    return _adaptive_avg_pool(2, input, output_size, output_size)

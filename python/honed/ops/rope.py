"""Rotary position embedding."""

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function
from honed.ops._rope_table import rope_table

if torch is not None:
    from honed.ops._torch.rope import Rope, composed

__all__ = ["rope", "rope_table"]

_run = function("rope")


def rope(x, cos, sin, positions=None, *, interleaved=False):
    """Rotates pairs ``(i, k)`` of the last dimension by the angle ``j`` of the position ``p``:
    ``y[i] = x[i] cos[p, j] - x[k] sin[p, j]``, ``y[k] = x[k] cos[p, j] + x[i] sin[p, j]``.

    Args:
        x: ``(B, T, H, D)``, float64, float32, float16 or bfloat16, any strides; a torch tensor or NumPy
            array. Of ``(B, H, T, D)`` pass ``x.transpose(1, 2)``, which copies nothing.
        cos, sin: ``(P, R / 2)`` float32 (or float64 beside float64), ``R <= D``; see :func:`rope_table`.
            Elements from ``R`` on stay. A gradient of theirs comes from torch's own ops.
        positions: ``(B, T)`` or ``(T,)`` int64; ``None`` is ``0, 1, ..., T - 1``.
        interleaved: ``(i, k)`` is ``(2j, 2j + 1)`` (GPT-J); else ``(j, j + R / 2)`` (Llama, NeoX).

    Returns:
        A contiguous tensor like ``x``. Arithmetic is float32, float64 for float64. The gradient of x is
        that of y, rotated by the negative angle.

    Raises:
        IndexError: a position beyond the tables. ValueError: shapes that do not fit. TypeError: a type
        without a kernel.

    Source: https://arxiv.org/abs/2104.09864

    >>> import numpy as np
    >>> x = np.array([[[[1.0, 0.0]], [[1.0, 0.0]]]], dtype=np.float32)
    >>> quarter = np.array([[1.0], [0.0]], dtype=np.float32), np.array([[0.0], [1.0]], dtype=np.float32)
    >>> rope(x, *quarter).tolist()
    [[[[1.0, 0.0]], [[0.0, 1.0]]]]
    """
    how = answer(x) if answer(cos, sin) == 1 else 0
    if how and torch is not None and isinstance(x, torch.Tensor) and x.itemsize < 8 == cos.itemsize:
        how = 0  # wider tables than x
    if how == 1:
        return _run(x, cos, sin, positions, interleaved, False)
    if how == 2:
        return Rope.apply(x, cos, sin, positions, interleaved, False)
    return fall_back("rope", composed, x, cos, sin, positions, interleaved)

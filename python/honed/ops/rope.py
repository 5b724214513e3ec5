"""Rotary position embedding."""

from honed._lib import _core, torch
from honed.ops._dispatch import fall_back, runs_natively
from honed.ops._rope_table import rope_table

__all__ = ["rope", "rope_table"]


def rope(x, cos, sin, positions=None, *, interleaved=False):
    """Rotates pairs ``(i, k)`` of the last dimension by the angle ``j`` of the position ``p``:
    ``y[i] = x[i] cos[p, j] - x[k] sin[p, j]``, ``y[k] = x[k] cos[p, j] + x[i] sin[p, j]``.

    Args:
        x: ``(B, T, H, D)``, float32, float16 or bfloat16, any strides; a torch tensor or NumPy array.
            Of ``(B, H, T, D)`` pass ``x.transpose(1, 2)``, which copies nothing.
        cos, sin: ``(P, R / 2)`` float32, ``R <= D``; see :func:`rope_table`. Elements from ``R`` on stay.
        positions: ``(B, T)`` or ``(T,)`` int64; ``None`` is ``0, 1, ..., T - 1``.
        interleaved: ``(i, k)`` is ``(2j, 2j + 1)`` (GPT-J); else ``(j, j + R / 2)`` (Llama, NeoX).

    Returns:
        A contiguous tensor like ``x``. Arithmetic is float32. With gradients on it is made of torch's ops.

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
    if runs_natively(x, cos, sin):
        return _core.rope(x, cos, sin, positions, interleaved)
    return fall_back("rope", _composed, x, cos, sin, positions, interleaved)


def _composed(x, cos, sin, positions, interleaved):
    """The same in torch's own ops: for gradients, other devices and tracing."""
    cos, sin = (t[: x.shape[1]] if positions is None else t[positions] for t in (cos, sin))
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    half = cos.shape[-1]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned[..., :half], turned[..., half:]
    first, second = a * cos - b * sin, b * cos + a * sin
    turned = torch.stack((first, second), -1).flatten(-2) if interleaved else torch.cat((first, second), -1)
    return torch.cat((turned.to(x.dtype), rest), -1)

"""The SwiGLU feed-forward gate."""

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function

if torch is not None:
    from honed.ops._torch.swiglu import Swiglu

_run = function("swiglu")


def swiglu(gate, up=None):
    """``y = silu(gate) up``, element by element; see :func:`silu`.

    Args:
        gate: any shape, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
        up: like ``gate``; ``None``: ``gate`` is ``(..., 2 C)`` and holds both, gate first, as a projection to
            both at once gives them. Nothing is copied where rows have one stride.

    Returns:
        A tensor of the shape of gate, with its strides where its memory has no gaps, else contiguous.
        With g the gradient of y, gate's is ``g up silu'(gate)`` and up's ``g silu(gate)``, made in one pass.

    Raises:
        ValueError: shapes that differ, an odd last dimension without ``up``.
        TypeError: a type without a kernel.

    Source: https://arxiv.org/abs/2002.05202

    >>> import numpy as np
    >>> swiglu(np.array([1.0, 2.0], dtype=np.float32)).round(4).tolist()
    [1.4621000289916992]
    """
    how = answer(gate, up)
    if how == 1:
        return _run(gate, up)
    if how == 2:
        return Swiglu.apply(gate, up)
    return fall_back("swiglu", _composed, gate, up)


def _composed(gate, up):
    """The same in torch's own ops."""
    if up is None:
        gate, up = gate.chunk(2, -1)
    return torch.nn.functional.silu(gate) * up

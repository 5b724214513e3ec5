"""The GEGLU feed-forward gate."""

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function

if torch is not None:
    from honed.ops._torch.geglu import Geglu

_run = function("geglu")


def geglu(gate, up=None, approximate="none"):
    """``y = gelu(gate) up``, element by element; see :func:`gelu`.

    Args:
        gate: any shape, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
        up: like ``gate``; ``None``: ``gate`` is ``(..., 2 C)`` and holds both, gate first, as a projection to
            both at once gives them. Nothing is copied where rows have one stride.
        approximate: ``"none"`` or ``"tanh"``, as in :func:`gelu`.

    Returns:
        A tensor of the shape of gate, with its strides where its memory has no gaps, else contiguous.
        With g the gradient of y, gate's is ``g up gelu'(gate)`` and up's ``g gelu(gate)``, made in one pass.

    Raises:
        ValueError: shapes that differ, an odd last dimension without ``up``, another ``approximate``.
        TypeError: a type without a kernel.

    Source: https://arxiv.org/abs/2002.05202

    >>> import numpy as np
    >>> geglu(np.array([1.0, 2.0], dtype=np.float32)).round(4).tolist()
    [1.682700037956238]
    """
    if approximate != "none" and approximate != "tanh":
        raise ValueError(f"geglu: approximate is {approximate!r}, expected 'none' or 'tanh'")
    how = answer(gate, up)
    if how == 1:
        return _run(gate, up, approximate == "tanh")
    if how == 2:
        return Geglu.apply(gate, up, approximate == "tanh")
    return fall_back("geglu", _composed, gate, up, approximate)


def _composed(gate, up, approximate):
    """The same in torch's own ops."""
    if up is None:
        gate, up = gate.chunk(2, -1)
    return torch.nn.functional.gelu(gate, approximate=approximate) * up

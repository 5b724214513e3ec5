"""The SiLU (swish) activation."""

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function

if torch is not None:
    from honed.ops._torch.silu import Silu

_run = function("silu")


def silu(input, inplace=False):
    """``y = x s``, ``s = 1 / (1 + e^-x)``, element by element.

    Args:
        input: any shape, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
        inplace: ``True`` goes to torch's own op.

    Returns:
        A tensor like ``input``, with its strides where its memory has no gaps, else contiguous. Its gradient
        is ``g s (1 + x (1 - s))``, g that of y.

    Raises:
        TypeError: a type without a kernel. ValueError: ``inplace`` of a NumPy array.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.silu.html

    >>> import numpy as np
    >>> silu(np.array([0.0, 1.0], dtype=np.float32)).round(4).tolist()
    [0.0, 0.7311000227928162]
    """
    if not inplace:
        how = answer(input)
        if how:
            return _run(input) if how == 1 else Silu.apply(input)
    if torch is None or not isinstance(input, torch.Tensor):
        raise ValueError("silu: inplace is True, expected False for an array")
    return fall_back("silu", torch.nn.functional.silu, input, inplace)

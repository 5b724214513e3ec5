"""The rectifier."""

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function

if torch is not None:
    from honed.ops._torch.relu import Relu

_run = function("relu")


def relu(input, inplace=False):
    """``y = max(x, 0)``, element by element.

    Args:
        input: any shape, float64, float32, float16 or bfloat16; a torch tensor or NumPy array. Other types go
            to torch's own op.
        inplace: ``True`` goes to torch's own op.

    Returns:
        A tensor like ``input``, with its strides where its memory has no gaps, else contiguous. Its gradient
        is that of y where ``y > 0``, else 0.

    Raises:
        TypeError: a type without a kernel. ValueError: ``inplace`` of a NumPy array.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.relu.html

    >>> import numpy as np
    >>> relu(np.array([-1.0, 2.0], dtype=np.float32)).tolist()
    [0.0, 2.0]
    """
    if not inplace:
        how = answer(input)
        if how:
            return _run(input) if how == 1 else Relu.apply(input)
    if torch is None or not isinstance(input, torch.Tensor):
        raise ValueError("relu: inplace is True, expected False for an array")
    return fall_back("relu", torch.nn.functional.relu, input, inplace)

"""Softmax."""

from honed._lib import torch
from honed.ops._dispatch import direct, function, is_compiling
from honed.ops._softmax_calls import general

if torch is not None:
    from honed.ops._torch.softmax import Softmax
else:
    Softmax = None

_run, _direct = function("softmax"), direct("softmax")


def softmax(input, dim=None, _stacklevel=3, dtype=None):
    """``y = e^(x - max(x)) / sum(e^(x - max(x)))`` over one dimension.

    Args:
        input: float64, float32, float16 or bfloat16, at least one dimension; a torch tensor or NumPy array.
        dim: the dimension. ``None`` goes to torch's own op.
        _stacklevel: torch's, for its warning when ``dim`` is ``None``.
        dtype: the result's, ``None`` for that of ``input``. float32 of a narrower input is computed without
            rounding in between; otherwise the input is converted first.

    Returns:
        A contiguous tensor of the shape of ``input``. Sums are float32, float64 for float64. A row of
        ``-inf`` alone is NaN. With g the gradient of y, that of input is ``y (g - sum(g y))``.

    Raises:
        ValueError: of NumPy arrays, a ``dim`` out of range, a ``dtype`` but ``None``, their own or float32 of
            float16. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softmax.html

    >>> import numpy as np
    >>> softmax(np.log(np.array([[1.0, 3.0]], dtype=np.float32)), dim=-1).tolist()
    [[0.25, 0.75]]
    """
    if dtype is None and dim is not None and not is_compiling():
        try:
            out = _direct(input, dim, False)
        except ValueError:  # a dim out of range: torch has its own error for that
            out = None
        if out is not None:
            return out
    return general("softmax", _run, Softmax, input, dim, _stacklevel, dtype)

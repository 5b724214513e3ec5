"""The logarithm of softmax."""

from honed._lib import torch
from honed.ops._dispatch import direct, function, is_compiling
from honed.ops._softmax_calls import general

if torch is not None:
    from honed.ops._torch.log_softmax import LogSoftmax
else:
    LogSoftmax = None

_run, _direct = function("log_softmax"), direct("log_softmax")


def log_softmax(input, dim=None, _stacklevel=3, dtype=None):
    """``y = x - max(x) - log(sum(e^(x - max(x))))`` over one dimension.

    Args:
        input: float64, float32, float16 or bfloat16, at least one dimension; a torch tensor or NumPy array.
        dim: the dimension. ``None`` goes to torch's own op.
        _stacklevel: torch's, for its warning when ``dim`` is ``None``.
        dtype: the result's, ``None`` for that of ``input``. float32 of a narrower input is computed without
            rounding in between; otherwise the input is converted first.

    Returns:
        A contiguous tensor of the shape of ``input``. Sums are float32, float64 for float64. A row of
        ``-inf`` alone is NaN. With g the gradient of y, that of input is ``g - e^y sum(g)``.

    Raises:
        ValueError: of NumPy arrays, a ``dim`` out of range, a ``dtype`` but ``None``, their own or float32 of
            float16. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html

    >>> import numpy as np
    >>> log_softmax(np.zeros((1, 2), dtype=np.float32), dim=-1).round(4).tolist()
    [[-0.6930999755859375, -0.6930999755859375]]
    """
    if dtype is None and dim is not None and not is_compiling():
        try:
            out = _direct(input, dim, False)
        except ValueError:  # a dim out of range: torch has its own error for that
            out = None
        if out is not None:
            return out
    return general("log_softmax", _run, LogSoftmax, input, dim, _stacklevel, dtype)

"""Softmax."""

import numpy as np

from honed._lib import _core, torch
from honed.ops._dispatch import fall_back, runs_natively


def softmax(input, dim=None, _stacklevel=3, dtype=None):
    """``y = e^(x - max(x)) / sum(e^(x - max(x)))`` over one dimension.

    Args:
        input: float32, float16 or bfloat16, at least one dimension; a torch tensor or NumPy array.
        dim: the dimension. Of torch tensors any but the last, and ``None``, go to torch's own op.
        _stacklevel: torch's, for its warning when ``dim`` is ``None``.
        dtype: the result's: ``None`` for that of ``input``, or float32. Others go to torch's own op.

    Returns:
        A tensor of the shape of ``input``, contiguous in torch. Sums are float32. A row of ``-inf`` alone
        is NaN.

    Raises:
        ValueError: of NumPy arrays, a ``dim`` or ``dtype`` beyond these. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softmax.html

    >>> import numpy as np
    >>> softmax(np.log(np.array([[1.0, 3.0]], dtype=np.float32)), dim=-1).tolist()
    [[0.25, 0.75]]
    """
    if torch is None or not isinstance(input, torch.Tensor):
        return _softmax_of_array(input, dim, dtype)
    if runs_natively(input) and input.dim() and (dim == -1 or dim == input.dim() - 1):
        if dtype is None or dtype == input.dtype:
            return _core.softmax(input, False)
        if dtype == torch.float32:
            return _core.softmax(input, True)
    return fall_back("softmax", torch.nn.functional.softmax, input, dim, _stacklevel, dtype)


def _softmax_of_array(x, dim, dtype):
    if dim is None or not -len(x.shape) <= dim < len(x.shape):
        raise ValueError(f"softmax: dim is {dim}, expected a dimension of an array of shape {list(x.shape)}")
    name = dtype if dtype is None or isinstance(dtype, str) else np.dtype(dtype).name
    if name not in (None, str(x.dtype), "float32"):
        raise ValueError(f"softmax: dtype is {name}, expected None, {x.dtype} or float32")
    to_f32 = name == "float32"
    if dim in (-1, len(x.shape) - 1):
        return _core.softmax(x, to_f32)
    return _core.softmax(x.swapaxes(dim, -1), to_f32).swapaxes(dim, -1)

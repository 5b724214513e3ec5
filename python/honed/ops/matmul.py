"""Matrix product."""

from honed._lib import _core, torch
from honed.ops._dispatch import fall_back, is_compiling

if torch is not None:
    from honed.ops import _product

_run = _core.matmul
_at_once = _core.matmul_at_once


def matmul(input, other, *, scale=1.0):
    """``y = scale * input @ other``, of vectors, matrices and batches of matrices.

    Args:
        input: ``(..., M, K)`` or ``(K,)``, float64, float32, float16 or bfloat16, any strides; a torch tensor
            or NumPy array.
        other: ``(..., K, N)`` or ``(K,)``, of the same type. Leading dimensions are broadcast.
        scale: a number.

    Returns:
        ``(..., M, N)`` of the input's type, contiguous; without M or N where the operand is a vector. Sums
        are float32, float64 for float64.

    Gradients reach both operands, any number of times. ``torch.autocast`` casts as it does torch's own
    ``matmul``. Tensors of other types or devices go to torch's own op.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.matmul.html

    >>> import numpy as np
    >>> matmul(np.array([1.0, 2.0]), np.array([[3.0, 4.0], [5.0, 6.0]]), scale=10)
    array([130., 160.])
    """
    if not is_compiling():
        y = _at_once(input, other, scale)
        if y is None:
            return _with_gradients(input, other, scale)
        if y is not NotImplemented:
            return y
    if torch is None or not isinstance(input, torch.Tensor):
        return _run(input, other, scale)
    dtype = _product.autocast_dtype()
    if dtype is not None:
        with torch.autocast("cpu", enabled=False):
            return matmul(_product.cast(input, dtype), _product.cast(other, dtype), scale=scale)
    how = _product.answer(input, other)
    if how == 0:
        return fall_back("matmul", _torchs, input, other, scale)
    if how == 1:
        return _product.run_matmul(input, other, scale)
    return _with_gradients(input, other, scale)


def _with_gradients(input, other, scale):
    left, right = input.dim() == 1, other.dim() == 1
    y = _product.matmul(input.unsqueeze(0) if left else input, other.unsqueeze(1) if right else other, scale)
    y = y.squeeze(-2) if left else y
    return y.squeeze(-1) if right else y


def _torchs(input, other, scale):
    """torch's own op."""
    y = torch.matmul(input, other)
    return y if scale == 1 else y * scale

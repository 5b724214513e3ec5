"""A sum and its root mean square normalisation."""

from honed._lib import torch
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling
from honed.ops._norm_shape import epsilon, last_dims

if torch is not None:
    from honed.ops._torch.add_rms_norm import AddRmsNorm, composed

_run, _direct = function("add_rms_norm"), direct("add_rms_norm")


def add_rms_norm(input, residual, normalized_shape, weight=None, eps=None):
    """``s = input + residual``, ``y = rms_norm(s)``, in one pass over memory.

    Args:
        input: ``(..., *normalized_shape)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy
            array.
        residual: like ``input``.
        normalized_shape, weight, eps: as of :func:`honed.ops.rms_norm`.

    Returns:
        ``(y, s)``, contiguous and like ``input``; s is rounded to its type before it is normed. Gradients
        reach input and residual (one tensor for both: that of s, and what y's gives s) and weight.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.rms_norm.html

    >>> import numpy as np
    >>> x = np.array([[1.0, 3.0]], dtype=np.float32)
    >>> y, s = add_rms_norm(x, x, (2,), eps=5.0)
    >>> s.tolist(), y.tolist()
    ([[2.0, 6.0]], [[0.4000000059604645, 1.2000000476837158]])
    """
    dims, size = last_dims("add_rms_norm", input, normalized_shape)
    if eps is None:
        eps = epsilon(input)
    if not is_compiling():
        out = _direct(input, residual, weight, eps, dims, size)
        if out is not None:
            return out
    how = answer(input, residual, weight)
    if not how:
        return fall_back("add_rms_norm", composed, input, residual, weight, eps, dims)
    if how == 1:
        return _run(input, residual, weight, eps, dims, size)
    return AddRmsNorm.apply(input, residual, weight, eps, dims, size)

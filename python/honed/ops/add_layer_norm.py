"""A sum and its layer normalisation."""

from honed._lib import torch
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling
from honed.ops._norm_shape import last_dims

if torch is not None:
    from honed.ops._torch.add_layer_norm import AddLayerNorm, composed

_run, _direct = function("add_layer_norm"), direct("add_layer_norm")


def add_layer_norm(input, residual, normalized_shape, weight=None, bias=None, eps=1e-5):
    """``s = input + residual``, ``y = layer_norm(s)``, in one pass over memory.

    Args:
        input: ``(..., *normalized_shape)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy
            array.
        residual: like ``input``.
        normalized_shape, weight, bias, eps: as of :func:`honed.ops.layer_norm`.

    Returns:
        ``(y, s)``, contiguous and like ``input``; s is rounded to its type before it is normed. Gradients
        reach input and residual (one tensor for both: that of s, and what y's gives s), weight and bias.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.layer_norm.html

    >>> import numpy as np
    >>> x = np.array([[1.0, 3.0]], dtype=np.float32)
    >>> y, s = add_layer_norm(x, x, (2,), eps=0.0)
    >>> s.tolist(), y.tolist()
    ([[2.0, 6.0]], [[-1.0, 1.0]])
    """
    dims, size = last_dims("add_layer_norm", input, normalized_shape)
    if not is_compiling():
        out = _direct(input, residual, weight, bias, eps, dims, size)
        if out is not None:
            return out
    how = answer(input, residual, weight, bias)
    if not how:
        return fall_back("add_layer_norm", composed, input, residual, weight, bias, eps, dims)
    if how == 1:
        return _run(input, residual, weight, bias, eps, dims, size)
    return AddLayerNorm.apply(input, residual, weight, bias, eps, dims, size)

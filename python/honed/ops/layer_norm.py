"""Layer normalisation."""

from honed._lib import torch
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling
from honed.ops._norm_shape import last_dims

if torch is not None:
    from honed.ops._torch.layer_norm import LayerNorm

_run, _direct = function("layer_norm"), direct("layer_norm")


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """``y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`` over the last dimensions.

    Args:
        input: ``(..., *normalized_shape)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy
            array.
        normalized_shape: the last dimensions, over which mean and variance are taken.
        weight: of that shape, or ``None``.
        bias: of that shape and weight's type, or ``None``.
        eps: added to the (biased) variance.

    Returns:
        A contiguous tensor like ``input``. Sums are float32, float64 for float64; the variance is summed
        around the mean. Gradients reach input, weight and bias; with g the gradient of y, d the root and
        n = (x - mean) / d they are ``(g weight - mean(g weight) - n mean(g weight n)) / d``, and ``g n`` and
        ``g`` summed over all rows.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.layer_norm.html

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]], dtype=np.float32), (2,), eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    dims, size = last_dims("layer_norm", input, normalized_shape)
    if not is_compiling():
        out = _direct(input, weight, bias, eps, dims, size)
        if out is not None:
            return out
    how = answer(input, weight, bias)
    if not how:
        shape = input.shape[-dims:] if dims > 1 else (size,)
        return fall_back("layer_norm", torch.nn.functional.layer_norm, input, shape, weight, bias, eps)
    if how == 1:
        return _run(input, weight, bias, eps, dims, size)
    return LayerNorm.apply(input, weight, bias, eps, dims, size)

"""Root mean square normalisation."""

from honed._lib import torch
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling
from honed.ops._norm_shape import epsilon, last_dims

if torch is not None:
    from honed.ops._torch.rms_norm import RmsNorm

_run, _direct = function("rms_norm"), direct("rms_norm")


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """``y = x / sqrt(mean(x^2) + eps) * weight`` over the last dimensions.

    Args:
        input: ``(..., *normalized_shape)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy
            array.
        normalized_shape: the last dimensions, over which the mean is taken.
        weight: of that shape, or ``None``.
        eps: ``None`` is the machine epsilon of the type sums are made in, as in torch.

    Returns:
        A contiguous tensor like ``input``. Sums are float32, float64 for float64. Gradients reach input and
        weight; with g the gradient of y, r the root and n = x / r they are
        ``(g weight - n mean(g weight n)) / r`` and ``g n`` summed over all rows.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.rms_norm.html

    >>> import numpy as np
    >>> honed_rms = rms_norm(np.array([[3.0, 4.0]], dtype=np.float32), (2,))
    >>> honed_rms.round(4).tolist()
    [[0.8485000133514404, 1.1313999891281128]]
    """
    dims, size = last_dims("rms_norm", input, normalized_shape)
    if eps is None:
        eps = epsilon(input)
    if not is_compiling():
        out = _direct(input, weight, eps, dims, size)
        if out is not None:
            return out
    how = answer(input, weight)
    if not how:
        shape = input.shape[-dims:] if dims > 1 else (size,)
        return fall_back("rms_norm", torch.nn.functional.rms_norm, input, shape, weight, eps)
    if how == 1:
        return _run(input, weight, eps, dims, size)
    return RmsNorm.apply(input, weight, eps, dims, size)

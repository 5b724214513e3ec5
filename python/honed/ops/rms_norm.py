"""Root mean square normalisation."""

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function

if torch is not None:
    from honed.ops._torch.rms_norm import RmsNorm

_run = function("rms_norm")


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """``y = x / sqrt(mean(x^2) + eps) * weight`` over the last dimension.

    Args:
        input: ``(..., C)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
        normalized_shape: ``(C,)``; more dimensions go to torch's own op.
        weight: ``(C,)`` or ``None``.
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
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    how = answer(input, weight) if len(shape) == 1 else 0
    if not how:
        return fall_back("rms_norm", torch.nn.functional.rms_norm, input, shape, weight, eps)
    if not input.shape or input.shape[-1] != shape[0]:
        raise ValueError(
            f"rms_norm: input has shape {list(input.shape)}, expected its last dimension to be {shape[0]}"
        )
    if eps is None:
        eps = 2.0**-52 if input.itemsize == 8 else 2.0**-23
    return _run(input, weight, eps) if how == 1 else RmsNorm.apply(input, weight, eps)

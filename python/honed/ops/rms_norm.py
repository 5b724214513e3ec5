"""Root mean square normalisation."""

from honed._lib import _core, torch
from honed.ops._dispatch import fall_back, runs_natively


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """``y = x / sqrt(mean(x^2) + eps) * weight`` over the last dimension.

    Args:
        input: ``(..., C)``, float32, float16 or bfloat16; a torch tensor or NumPy array.
        normalized_shape: ``(C,)``; more dimensions go to torch's own op.
        weight: ``(C,)`` or ``None``.
        eps: ``None`` is the machine epsilon of float32, as in torch.

    Returns:
        A contiguous tensor like ``input``. Sums are float32.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.rms_norm.html

    >>> import numpy as np
    >>> honed_rms = rms_norm(np.array([[3.0, 4.0]], dtype=np.float32), (2,))
    >>> honed_rms.round(4).tolist()
    [[0.8485000133514404, 1.1313999891281128]]
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if len(shape) == 1 and runs_natively(input, weight):
        if not input.shape or input.shape[-1] != shape[0]:
            raise ValueError(
                f"rms_norm: input has shape {list(input.shape)}, expected its last dimension to be {shape[0]}"
            )
        return _core.rms_norm(input, weight, 1.1920929e-07 if eps is None else eps)
    return fall_back("rms_norm", torch.nn.functional.rms_norm, input, shape, weight, eps)

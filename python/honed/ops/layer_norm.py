"""Layer normalisation."""

from honed._lib import _core, torch
from honed.ops._dispatch import fall_back, runs_natively


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """``y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`` over the last dimension.

    Args:
        input: ``(..., C)``, float32, float16 or bfloat16; a torch tensor or NumPy array.
        normalized_shape: ``(C,)``; more dimensions go to torch's own op.
        weight: ``(C,)`` or ``None``.
        bias: ``(C,)``, of weight's type, or ``None``.
        eps: added to the (biased) variance.

    Returns:
        A contiguous tensor like ``input``. Sums are float32, the variance is summed around the mean.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.layer_norm.html

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]], dtype=np.float32), (2,), eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if len(shape) == 1 and runs_natively(input, weight, bias):
        if not input.shape or input.shape[-1] != shape[0]:
            raise ValueError(
                f"layer_norm: input has shape {list(input.shape)}, "
                f"expected its last dimension to be {shape[0]}"
            )
        return _core.layer_norm(input, weight, bias, eps)
    if torch is None or not isinstance(input, torch.Tensor):
        raise ValueError(f"layer_norm: normalized_shape is {shape}, expected one dimension for an array")
    return fall_back("layer_norm", torch.nn.functional.layer_norm, input, shape, weight, bias, eps)

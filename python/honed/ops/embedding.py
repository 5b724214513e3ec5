"""Rows of a table by number."""

from honed._lib import _core, torch
from honed.ops._dispatch import fall_back, runs_natively


def embedding(
    input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):
    """``y[..., :] = weight[input[...], :]``.

    Args:
        input: row numbers of any shape, int64 or int32; a torch tensor or NumPy array.
        weight: ``(V, C)``, float32, float16 or bfloat16.
        padding_idx: a row that gets no gradient; the result does not depend on it.
        max_norm, norm_type: renormalise ``weight`` in place, which goes to torch's own op.
        scale_grad_by_freq, sparse: matter to gradients only.

    Returns:
        A contiguous tensor like ``weight`` of shape ``(*input.shape, C)``.

    Raises:
        IndexError: a number that ``weight`` has no row for; nothing was read then.
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.embedding.html

    >>> import numpy as np
    >>> embedding(np.array([1, 0]), np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    if max_norm is None and runs_natively(weight) and (torch is None or _are_ids(input)):
        if padding_idx is not None and not -weight.shape[0] <= padding_idx < weight.shape[0]:
            raise ValueError(
                f"embedding: padding_idx is {padding_idx}, expected at least {-weight.shape[0]} "
                f"and less than {weight.shape[0]}"
            )
        return _core.embedding(input, weight)
    if torch is None or not isinstance(weight, torch.Tensor):
        raise ValueError("embedding: max_norm is given, expected None for an array")
    return fall_back(
        "embedding",
        torch.nn.functional.embedding,
        input,
        weight,
        padding_idx,
        max_norm,
        norm_type,
        scale_grad_by_freq,
        sparse,
    )


def _are_ids(ids):
    return (type(ids) is torch.Tensor and ids.is_cpu) or not isinstance(ids, torch.Tensor)

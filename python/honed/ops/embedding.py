"""Rows of a table by number."""

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function

if torch is not None:
    from honed.ops._torch.embedding import Embedding

_run = function("embedding")


def embedding(
    input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):
    """``y[..., :] = weight[input[...], :]``.

    Args:
        input: row numbers of any shape, int64 or int32; a torch tensor or NumPy array.
        weight: ``(V, C)``, float64, float32, float16 or bfloat16.
        padding_idx: a row that gets no gradient; the result does not depend on it.
        max_norm, norm_type: renormalise ``weight`` in place, which goes to torch's own op.
        scale_grad_by_freq: divide a row's gradient by how often ``input`` names it.
        sparse: a sparse gradient, which goes to torch's own op.

    Returns:
        A contiguous tensor like ``weight`` of shape ``(*input.shape, C)``. The gradient of a row
        is the sum over the places that name it, in their order: the same bits for any number of threads.

    Raises:
        IndexError: a number that ``weight`` has no row for; nothing was read then.
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.embedding.html

    >>> import numpy as np
    >>> embedding(np.array([1, 0]), np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    how = answer(weight) if max_norm is None and (torch is None or _are_ids(input)) else 0
    if how:
        rows = weight.shape[0]
        if padding_idx is not None and not -rows <= padding_idx < rows:
            raise ValueError(
                f"embedding: padding_idx is {padding_idx}, expected at least {-rows} and less than {rows}"
            )
        if how == 1:
            return _run(weight, input)
        if not sparse:
            padding = -1 if padding_idx is None else padding_idx % rows
            return Embedding.apply(weight, torch.as_tensor(input), padding, scale_grad_by_freq)
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
    if not isinstance(ids, torch.Tensor):
        return True
    return ids.is_cpu and (type(ids) is torch.Tensor or torch.compiler.is_exporting())

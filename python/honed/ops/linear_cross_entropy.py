"""Cross entropy of a linear layer's output that never exists whole."""

from contextlib import nullcontext

from honed._lib import torch
from honed.ops._dispatch import fall_back, function
from honed.ops.cross_entropy import REDUCTIONS

if torch is not None:
    from honed.ops import _product
    from honed.ops._torch import cross_entropy as _loss
    from honed.ops._torch import linear_cross_entropy as _torch_side

_run = function("linear_cross_entropy")


def linear_cross_entropy(
    input,
    linear_weight,
    target,
    *,
    linear_bias=None,
    weight=None,
    reduction="mean",
    ignore_index=None,
    label_smoothing=0.0,
    options=None,
    z_loss=0.0,
    softcap=0.0,
    chunk=0,
):
    """``cross_entropy(input @ linear_weight.T + linear_bias, target)`` without holding the logits.

    Logits exist for ``chunk`` rows at a time. Where gradients are wanted and ``reduction`` is ``"mean"`` or
    ``"sum"``, they are made of a chunk's logits before the next chunk, so that what a call needs beside its
    operands and their gradients is the logits of one chunk. Those of float16 are made in the backward, of
    the logits again, and rounded after they were scaled (``torch.amp.GradScaler``).

    Args:
        input: ``(K,)`` or ``(..., K)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
        linear_weight: ``(C, K)`` of the same type; more dimensions go to torch's own op.
        target: class numbers, shaped as ``input`` without ``K``, int64, int32 or uint8. Probabilities,
            ``(..., C)``, go to torch's own op.
        linear_bias: ``(C,)`` of the same type, or ``None``.
        weight: ``(C,)``, a factor of each class, or ``None``.
        reduction, label_smoothing, z_loss, softcap: as :func:`honed.ops.cross_entropy` has them.
        ignore_index: a target whose row does not count; ``None`` is -100.
        options: torch's ``LinearCrossEntropyOptions``; given, torch's own op runs.
        chunk: rows whose logits exist at a time; 0 chooses as many as fill 32 MB.

    Returns:
        A number, or for ``"none"`` a tensor shaped as ``target``, of input's type. Logits are rounded to
        input's type, sums and gradients over chunks are float32 (float64) and rounded once. Gradients reach
        input, linear_weight and linear_bias; derivatives of them are made by torch, with all logits.
        ``torch.autocast`` casts as it does a linear layer's operands; the loss is float32 then.

    Raises:
        IndexError: a target that is no class. ValueError: shapes that do not fit. TypeError: a type without a
        kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear_cross_entropy.html

    >>> import numpy as np
    >>> x, w = np.ones((2, 3)), np.zeros((4, 3))
    >>> round(float(np.exp(linear_cross_entropy(x, w, np.array([0, 3])))), 6)
    4.0
    """
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"linear_cross_entropy: reduction is {reduction!r}, expected 'none', 'mean' or 'sum'"
        )
    ignored = -100 if ignore_index is None else ignore_index
    how_to = (ignored, REDUCTIONS[reduction], label_smoothing, z_loss, softcap)
    nothing = (False, False, False, False)  # a wide loss, gradients
    if torch is None or not isinstance(input, torch.Tensor):
        return _run(input, linear_weight, target, linear_bias, weight, None, *how_to, chunk, *nothing)[0]
    if options is None and linear_weight.dim() == 2 and _loss.are_classes(target, weight):
        operands, wide = (input, linear_weight, linear_bias), False
        dtype = _product.autocast_dtype()
        if dtype is not None:
            operands, wide = [_product.cast(t, dtype) for t in operands], True
        with torch.autocast("cpu", enabled=False) if wide else nullcontext():
            how = _product.answer(*operands)
            x, w, b = operands
            if weight is not None and (weight.dtype == torch.float64) != (x.dtype == torch.float64):
                how = 0
            if how == 1:
                return _run(x, w, target, b, weight, None, *how_to, chunk, wide, *nothing[1:])[0]
            if how == 2:
                return _torch_side.LinearCrossEntropy.apply(x, w, target, b, weight, *how_to, chunk, wide)
    return _torchs(input, linear_weight, target, linear_bias, weight, ignore_index, options, how_to)


def _torchs(input, linear_weight, target, linear_bias, weight, ignore_index, options, how_to):
    _, reduction, label_smoothing, z_loss, softcap = how_to
    if z_loss or softcap:
        if options is not None or linear_weight.dim() != 2:
            raise ValueError(
                "linear_cross_entropy: z_loss or softcap beside options or a linear_weight of shape "
                f"{list(linear_weight.shape)}, expected none of these, which are torch's own"
            )
        return fall_back(
            "linear_cross_entropy",
            _torch_side.composed,
            input,
            linear_weight,
            target,
            linear_bias,
            weight,
            *how_to,
        )
    return fall_back(
        "linear_cross_entropy",
        torch.nn.functional.linear_cross_entropy,
        input,
        linear_weight,
        target,
        linear_bias=linear_bias,
        weight=weight,
        reduction=("none", "mean", "sum")[reduction],
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        options=options,
    )

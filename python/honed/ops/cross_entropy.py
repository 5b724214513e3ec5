"""Cross entropy of logits."""

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function

if torch is not None:
    from honed.ops._torch import cross_entropy as _torch_side

_run = function("cross_entropy")
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}  # as ops/cross_entropy.h numbers them


def cross_entropy(
    input,
    target,
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
    *,
    z_loss=0.0,
    softcap=0.0,
):
    """``lse(l) - l[target]`` of every row ``l`` of logits, where ``lse(l) = log sum_c exp(l_c)``.

    With all options the loss of a row is ``sum_c q_c weight_c (lse - l_c) + z_loss lse^2``, where
    ``q_c = (1 - label_smoothing) [c == target] + label_smoothing / C``.

    Args:
        input: logits ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``, float64, float32, float16 or bfloat16; a
            torch tensor or NumPy array.
        target: class numbers, shaped as ``input`` without ``C``, int64, int32 or uint8. Probabilities, a
            floating tensor of input's shape, go to torch's own op.
        weight: ``(C,)``, a factor of each class, or ``None``.
        size_average, reduce: what torch had before ``reduction``; they override it.
        ignore_index: a target whose row has no loss and no gradient.
        reduction: ``"mean"`` divides the sum of all losses by the sum of the targets' weights (without
            weights
            by the rows that are not ignored: NaN where there are none), ``"sum"``, ``"none"``.
        label_smoothing: in [0, 1], how much of the target is the uniform distribution.
        z_loss: the factor of ``lse^2``, which keeps logits from drifting (PaLM). Class weights do not touch
            it.
        softcap: logits are ``softcap tanh(input / softcap)``; 0 takes them as they are.

    Returns:
        A number, or for ``"none"`` a tensor shaped as ``target``, of input's type, float32 under
        ``torch.autocast``; sums are float32 and float64. Gradients reach input, any number of times. For
        ``"mean"`` and ``"sum"`` the gradient is made together with the loss, while a row is in the cache; not
        that of float16, which is rounded after it was scaled (``torch.amp.GradScaler``).

    Raises:
        IndexError: a target that is no class; nothing was computed then. ValueError: shapes that do not fit.
        TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html and, for
    z_loss, https://arxiv.org/abs/2204.02311

    >>> import numpy as np
    >>> logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    >>> np.exp(-cross_entropy(logits, np.array([1, 2]), reduction="none")).round(6).tolist()
    [0.25, 0.8]
    """
    if size_average is not None or reduce is not None:
        reduction = _before(size_average, reduce)
    if reduction not in REDUCTIONS:
        raise ValueError(f"cross_entropy: reduction is {reduction!r}, expected 'none', 'mean' or 'sum'")
    options = (ignore_index, REDUCTIONS[reduction], label_smoothing, z_loss, softcap)
    if torch is None or not isinstance(input, torch.Tensor):
        rows = input.transpose(0, *range(2, input.ndim), 1) if input.ndim > 2 else input
        return _run(rows, target, weight, *options, False, False, False)[0]
    how = answer(input, weight) if _torch_side.are_classes(target, weight) else 0
    if not how:
        return fall_back("cross_entropy", _torch_side.composed, input, target, weight, *options)
    rows = input.movedim(1, -1) if input.dim() > 2 else input
    wide = torch.is_autocast_enabled("cpu")
    if how == 1:
        return _run(rows, target, weight, *options, wide, False, False)[0]
    return _torch_side.CrossEntropy.apply(rows, target, weight, *options, wide)


def _before(size_average, reduce):
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"

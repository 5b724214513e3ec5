"""cross_entropy in torch: shapes, gradients, and what only torch does."""

import torch
import torch.nn.functional as F

from honed.ops._dispatch import function, tracing
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, needs_torch

_forward, _backward = function("cross_entropy"), function("cross_entropy_backward")
_CLASSES = (torch.int64, torch.int32, torch.uint8)


def loss_dtype(input, wide):
    """That of the loss: input's, float32 at least where it is to be wide."""
    return torch.float32 if wide and input.dtype != torch.float64 else input.dtype


@result_of("cross_entropy")
def _(
    input, target, weight, ignore_index, reduction, smoothing, z_loss, softcap, wide_loss, need_lse, need_grad
):
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    none = input.new_empty(0, dtype=torch.float32)
    return (
        input.new_empty(target.shape if reduction == 0 else (), dtype=loss_dtype(input, wide_loss)),
        input.new_empty((target.numel(), 2), dtype=wide) if need_lse else none,
        input.new_empty(input.shape) if need_grad else none,
    )


@result_of("cross_entropy_backward")
def _(grad, input, target, weight, lse, ignore_index, smoothing, z_loss, softcap):
    return input.new_empty(input.shape)


def are_classes(target, weight) -> bool:
    """True where the kernels read these: plain class numbers, a weight that wants no gradient."""
    return (
        isinstance(target, torch.Tensor)
        and target.dtype in _CLASSES
        and target.device.type == "cpu"
        and (type(target) is torch.Tensor or tracing())
        and not (weight is not None and weight.requires_grad and torch.is_grad_enabled())
    )


def composed(input, target, weight, ignore_index, reduction, smoothing, z_loss, softcap):
    """The same by torch's own ops, which take probabilities as targets too."""
    if softcap:
        input = softcap * torch.tanh(input / softcap)
    classes = not target.is_floating_point()
    if classes and target.dtype != torch.int64:
        target = target.long()
    name = ("none", "mean", "sum")[reduction]
    loss = F.cross_entropy(
        input, target, weight, ignore_index=ignore_index, reduction=name, label_smoothing=smoothing
    )
    if not z_loss:
        return loss
    squares = z_loss * input.logsumexp(0 if input.dim() == 1 else 1).square()
    if not classes:
        count = squares.numel()
    else:
        kept = target != ignore_index
        squares = torch.where(kept, squares, 0)
        count = kept.sum() if weight is None else weight[target[kept]].sum()
    return loss + (squares, squares.sum() / count, squares.sum())[reduction]


def made_early(input, reduction) -> bool:
    """Whether the forward makes the gradient, which the backward multiplies by that of the loss.

    Not of one loss a row; not of float16, where a gradient that is not yet scaled (``torch.amp.GradScaler``)
    is 0.
    """
    return reduction != 0 and input.dtype != torch.float16


def of_rows(grad, target, weight, ignore_index, reduction):
    """The gradients of the rows' losses, of that of the reduced loss."""
    if reduction == 0:
        return grad
    grad = grad.double()
    if reduction == 1:
        kept = target != ignore_index
        if weight is None:
            grad = grad / kept.sum()
        else:
            grad = grad / torch.where(kept, weight.double()[torch.where(kept, target, 0).long()], 0).sum()
    return grad.expand(target.shape)


class CrossEntropy(torch.autograd.Function):
    """cross_entropy of rows, classes last, with gradients."""

    @staticmethod
    def forward(ctx, input, target, weight, *options):  # the last: a wide loss
        early = made_early(input, options[1])
        loss, lse, made = _forward(input, target, weight, *options, not early, early)
        ctx.early, ctx.options = early, options
        # Made in the forward, the gradient is handed out once; a second backward makes it again.
        ctx.made = made if early and not tracing() else None
        kept = lse if not early else made if tracing() else None
        ctx.save_for_backward(input, target, weight, kept)
        return loss

    @staticmethod
    def backward(ctx, grad):
        rest = (None,) * 8
        ignore_index, reduction, *more, wide = ctx.options
        if not tracing() and (torch.is_grad_enabled() or needs_torch(grad)):
            input, target, weight, _ = ctx.saved_tensors

            def plain(x):
                x = x.to(loss_dtype(x, wide))
                rows = x.movedim(-1, 1) if x.dim() > 2 else x
                return composed(rows, target, weight, ignore_index, reduction, *more)

            return *again(plain, (input,), grad, (True,)), *rest
        if ctx.early and not tracing():
            made, ctx.made = ctx.made, None
            if made is None:
                input, target, weight, _ = ctx.saved_tensors
                made = _forward(input, target, weight, *ctx.options, False, True)[2]
            return made if grad == 1 else made.mul_(grad), *rest
        input, target, weight, kept = ctx.saved_tensors
        if ctx.early:
            return kept * grad, *rest
        grad = of_rows(grad, target, weight, ignore_index, reduction)
        return _backward(grad, input, target, weight, kept, ignore_index, *more), *rest

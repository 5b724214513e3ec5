"""linear_cross_entropy in torch: shapes, gradients, and the whole logits where torch needs them."""

import torch

from honed.ops._dispatch import function, tracing
from honed.ops._library import result_of
from honed.ops._torch import cross_entropy
from honed.ops._torch._gradient import again, empty_if, needs_torch

_run = function("linear_cross_entropy")


@result_of("linear_cross_entropy")
def _(input, linear_weight, target, linear_bias, weight, grad, ignore_index, reduction, *rest):
    wide, *needs = rest[-4:]
    dtype = cross_entropy.loss_dtype(input, wide)
    like = zip((input, linear_weight, linear_bias), needs, strict=True)
    return (
        input.new_empty(target.shape if reduction == 0 else (), dtype=dtype),
        *(empty_if(need, t, input) for t, need in like),
    )


def composed(input, linear_weight, target, linear_bias, weight, *how_to, wide=False):
    """The same by torch's own ops, with all logits."""
    logits = torch.nn.functional.linear(input, linear_weight, linear_bias)
    logits = logits.to(cross_entropy.loss_dtype(logits, wide))
    if logits.dim() > 2:
        logits = logits.movedim(-1, 1)
    return cross_entropy.composed(logits, target, weight, *how_to)


class LinearCrossEntropy(torch.autograd.Function):
    """linear_cross_entropy with gradients."""

    @staticmethod
    def forward(ctx, input, linear_weight, target, linear_bias, weight, *options):  # last: chunk, wide
        needs = ctx.needs_input_grad
        ctx.needs = (needs[0], needs[1], needs[3])
        ctx.options = options
        ctx.early = cross_entropy.made_early(input, options[1])
        now = ctx.needs if ctx.early else (False, False, False)
        loss, *made = _run(input, linear_weight, target, linear_bias, weight, None, *options, *now)
        # Made in the forward, gradients are handed out once; a second backward makes them again.
        ctx.made = made if ctx.early and not tracing() else None
        kept = made if ctx.early and tracing() else ()
        ctx.save_for_backward(input, linear_weight, target, linear_bias, weight, *kept)
        return loss

    @staticmethod
    def backward(ctx, grad):
        input, linear_weight, target, linear_bias, weight, *kept = ctx.saved_tensors
        if not tracing() and (torch.is_grad_enabled() or needs_torch(grad)):
            *how_to, _, wide = ctx.options

            def plain(x, w, b):
                return composed(x, w, target, b, weight, *how_to, wide=wide)

            dx, dw, db = again(plain, (input, linear_weight, linear_bias), grad, ctx.needs)
        elif kept:
            scaled = (d * grad if need else None for d, need in zip(kept, ctx.needs, strict=True))
            dx, dw, db = scaled
        else:
            made, ctx.made = ctx.made, None
            if made is None:
                how = (target, weight, *ctx.options[:2])
                rows = None if ctx.early else cross_entropy.of_rows(grad, *how)
                operands = (input, linear_weight, target, linear_bias, weight, rows)
                _, *made = _run(*operands, *ctx.options, *ctx.needs)
            made = [d if need else None for d, need in zip(made, ctx.needs, strict=True)]
            if ctx.early and grad != 1:
                made = [d if d is None else d.mul_(grad) for d in made]
            dx, dw, db = made
        return dx, dw, None, db, *(None,) * 8

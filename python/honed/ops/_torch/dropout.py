"""dropout in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import answer, function
from honed.ops._library import result_of

_forward = function("dropout")


@result_of("dropout")
def _(input, seed, p):
    return torch.empty_like(input, memory_format=torch.contiguous_format)


class Dropout(torch.autograd.Function):
    """dropout with gradients of every order: the function is linear and its own gradient."""

    @staticmethod
    def forward(ctx, input, seed, p):
        ctx.save_for_backward(seed)
        ctx.p = p
        return _forward(input, seed, p)

    @staticmethod
    def backward(ctx, grad):
        (seed,) = ctx.saved_tensors
        how = answer(grad)
        if how == 0:
            mask = _forward(torch.ones(grad.shape, dtype=grad.dtype), seed, ctx.p)
            return grad * mask, None, None
        run = _forward if how == 1 else Dropout.apply
        return run(grad, seed, ctx.p), None, None

"""softmax in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import needs_torch

_forward, _backward = function("softmax"), function("softmax_backward")
_TYPES = (None, torch.float16, torch.bfloat16)


@result_of("softmax")
def _(input, dim, to_f32):
    return input.new_empty(input.shape, dtype=torch.float32 if to_f32 else input.dtype)


@result_of("softmax_backward")
def _(grad, output, dim, narrow):
    return output.new_empty(output.shape, dtype=_TYPES[narrow] or output.dtype)


class Softmax(torch.autograd.Function):
    """softmax with gradients; ``narrow`` as in csrc/bindings/softmax.h."""

    @staticmethod
    def forward(ctx, input, dim, to_f32, narrow):
        y = _forward(input, dim, to_f32)
        ctx.save_for_backward(y)
        ctx.dim, ctx.narrow = dim, narrow
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        if needs_torch(grad, y):
            d_input = y * (grad - (grad * y).sum(ctx.dim, keepdim=True))
            return d_input.to(_TYPES[ctx.narrow] or y.dtype), None, None, None
        return _backward(grad, y, ctx.dim, ctx.narrow), None, None, None

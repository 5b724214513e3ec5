"""softmax and log_softmax in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import needs_torch

_TYPES = (None, torch.float16, torch.bfloat16)


def of_result(name, derived):
    """The autograd.Function of op ``name``, whose gradient needs the result alone.

    ``derived`` is that gradient in torch's ops: of grad, result and dim. ``narrow`` as in
    csrc/bindings/softmax.h.
    """
    forward_of, backward_of = function(name), function(f"{name}_backward")

    @result_of(name)
    def _(input, dim, to_f32):
        return input.new_empty(input.shape, dtype=torch.float32 if to_f32 else input.dtype)

    @result_of(f"{name}_backward")
    def _(grad, output, dim, narrow):
        return output.new_empty(output.shape, dtype=_TYPES[narrow] or output.dtype)

    class OfResult(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input, dim, to_f32, narrow):
            y = forward_of(input, dim, to_f32)
            ctx.save_for_backward(y)
            ctx.dim, ctx.narrow = dim, narrow
            return y

        @staticmethod
        def backward(ctx, grad):
            (y,) = ctx.saved_tensors
            if needs_torch(grad, y):
                return derived(grad, y, ctx.dim).to(_TYPES[ctx.narrow] or y.dtype), None, None, None
            return backward_of(grad, y, ctx.dim, ctx.narrow), None, None, None

    return OfResult

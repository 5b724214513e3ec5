"""rms_norm in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, empty_if, needs_torch

_forward, _backward = function("rms_norm"), function("rms_norm_backward")


@result_of("rms_norm")
def _(input, weight, eps, dims, size):
    return input.new_empty(input.shape)


@result_of("rms_norm_backward")
def _(grad, input, weight, eps, dims, need_input, need_weight):
    return empty_if(need_input, input, grad), empty_if(need_weight, weight, grad)


class RmsNorm(torch.autograd.Function):
    """rms_norm with gradients."""

    @staticmethod
    def forward(ctx, input, weight, eps, dims, size):
        ctx.save_for_backward(input, weight)
        ctx.eps, ctx.dims = eps, dims
        return _forward(input, weight, eps, dims, size)

    @staticmethod
    def backward(ctx, grad):
        input, weight = ctx.saved_tensors
        need = ctx.needs_input_grad[:2]
        if needs_torch(grad, input, weight):
            norm = torch.nn.functional.rms_norm
            plain = lambda x, w: norm(x, x.shape[-ctx.dims :], w, ctx.eps)  # noqa: E731
            return *again(plain, (input, weight), grad, need), None, None, None
        d_input, d_weight = _backward(grad, input, weight, ctx.eps, ctx.dims, *need)
        return d_input if need[0] else None, d_weight if need[1] else None, None, None, None

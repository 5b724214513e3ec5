"""layer_norm in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, empty_if, needs_torch

_forward, _backward = function("layer_norm"), function("layer_norm_backward")


@result_of("layer_norm")
def _(input, weight, bias, eps, dims, size):
    return input.new_empty(input.shape)


@result_of("layer_norm_backward")
def _(grad, input, weight, bias, eps, dims, need_input, need_weight, need_bias):
    return (
        empty_if(need_input, input, grad),
        empty_if(need_weight, weight, grad),
        empty_if(need_bias, bias, grad),
    )


class LayerNorm(torch.autograd.Function):
    """layer_norm with gradients."""

    @staticmethod
    def forward(ctx, input, weight, bias, eps, dims, size):
        ctx.save_for_backward(input, weight, bias)
        ctx.eps, ctx.dims = eps, dims
        return _forward(input, weight, bias, eps, dims, size)

    @staticmethod
    def backward(ctx, grad):
        input, weight, bias = ctx.saved_tensors
        need = ctx.needs_input_grad[:3]
        if needs_torch(grad, input, weight, bias):
            norm = torch.nn.functional.layer_norm
            plain = lambda x, w, b: norm(x, x.shape[-ctx.dims :], w, b, ctx.eps)  # noqa: E731
            return *again(plain, (input, weight, bias), grad, need), None, None, None
        found = _backward(grad, input, weight, bias, ctx.eps, ctx.dims, *need)
        return *(g if n else None for g, n in zip(found, need, strict=True)), None, None, None

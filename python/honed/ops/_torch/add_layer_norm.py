"""add_layer_norm in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, empty_if, needs_torch

_forward, _backward = function("add_layer_norm"), function("add_layer_norm_backward")


@result_of("add_layer_norm")
def _(input, residual, weight, bias, eps, dims, size):
    return input.new_empty(input.shape), input.new_empty(input.shape)


@result_of("add_layer_norm_backward")
def _(grad, grad_sum, sum, weight, bias, eps, dims, need_sum, need_weight, need_bias):
    return (
        empty_if(need_sum, sum, grad),
        empty_if(need_weight, weight, grad),
        empty_if(need_bias, bias, grad),
    )


def composed(input, residual, weight, bias, eps, dims):
    """The same in torch's own ops."""
    s = input + residual
    return torch.nn.functional.layer_norm(s, s.shape[s.dim() - dims :], weight, bias, eps), s


class AddLayerNorm(torch.autograd.Function):
    """add_layer_norm with gradients."""

    @staticmethod
    def forward(ctx, input, residual, weight, bias, eps, dims, size):
        y, s = _forward(input, residual, weight, bias, eps, dims, size)
        ctx.save_for_backward(s, weight, bias)
        ctx.eps, ctx.dims = eps, dims
        ctx.set_materialize_grads(False)
        return y, s

    @staticmethod
    def backward(ctx, grad, grad_sum):
        s, weight, bias = ctx.saved_tensors
        need_input, need_residual, *need = ctx.needs_input_grad[:4]
        need = (need_input or need_residual, *need)
        if grad is None:
            d_sum, d = grad_sum, (None,) * 2
        elif needs_torch(grad, grad_sum, s, weight, bias):
            norm = torch.nn.functional.layer_norm
            plain = lambda s, w, b: norm(s, s.shape[-ctx.dims :], w, b, ctx.eps)  # noqa: E731
            d_sum, *d = again(plain, (s, weight, bias), grad, need)
            if d_sum is not None and grad_sum is not None:
                d_sum = d_sum + grad_sum
        else:
            d_sum, *d = _backward(grad, grad_sum, s, weight, bias, ctx.eps, ctx.dims, *need)
            d = [each if n else None for each, n in zip(d, need[1:], strict=True)]
        return d_sum if need_input else None, d_sum if need_residual else None, *d, None, None, None

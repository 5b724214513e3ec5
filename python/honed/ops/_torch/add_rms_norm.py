"""add_rms_norm in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, empty_if, needs_torch

_forward, _backward = function("add_rms_norm"), function("add_rms_norm_backward")


@result_of("add_rms_norm")
def _(input, residual, weight, eps, dims, size):
    return input.new_empty(input.shape), input.new_empty(input.shape)


@result_of("add_rms_norm_backward")
def _(grad, grad_sum, sum, weight, eps, dims, need_sum, need_weight):
    return (
        empty_if(need_sum, sum, grad),
        empty_if(need_weight, weight, grad),
    )


def composed(input, residual, weight, eps, dims):
    """The same in torch's own ops."""
    s = input + residual
    return torch.nn.functional.rms_norm(s, s.shape[s.dim() - dims :], weight, eps), s


class AddRmsNorm(torch.autograd.Function):
    """add_rms_norm with gradients."""

    @staticmethod
    def forward(ctx, input, residual, weight, eps, dims, size):
        y, s = _forward(input, residual, weight, eps, dims, size)
        ctx.save_for_backward(s, weight)
        ctx.eps, ctx.dims = eps, dims
        ctx.set_materialize_grads(False)
        return y, s

    @staticmethod
    def backward(ctx, grad, grad_sum):
        s, weight = ctx.saved_tensors
        need_input, need_residual, need_weight = ctx.needs_input_grad[:3]
        need = (need_input or need_residual, need_weight)
        if grad is None:
            d_sum, d = grad_sum, (None,) * 1
        elif needs_torch(grad, grad_sum, s, weight):
            norm = torch.nn.functional.rms_norm
            plain = lambda s, w: norm(s, s.shape[-ctx.dims :], w, ctx.eps)  # noqa: E731
            d_sum, *d = again(plain, (s, weight), grad, need)
            if d_sum is not None and grad_sum is not None:
                d_sum = d_sum + grad_sum
        else:
            d_sum, *d = _backward(grad, grad_sum, s, weight, ctx.eps, ctx.dims, *need)
            d = [each if n else None for each, n in zip(d, need[1:], strict=True)]
        return d_sum if need_input else None, d_sum if need_residual else None, *d, None, None, None

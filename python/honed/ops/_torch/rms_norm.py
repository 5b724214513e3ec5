"""rms_norm in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again

_forward, _backward = function("rms_norm"), function("rms_norm_backward")


@result_of("rms_norm")
def _(input, weight, eps):
    return input.new_empty(input.shape)


@result_of("rms_norm_backward")
def _(grad, input, weight, eps, need_input, need_weight):
    need_weight = need_weight and weight is not None
    return (
        input.new_empty(input.shape) if need_input else input.new_empty(0, dtype=torch.float32),
        weight.new_empty(weight.shape) if need_weight else input.new_empty(0, dtype=torch.float32),
    )


class RmsNorm(torch.autograd.Function):
    """rms_norm with gradients."""

    @staticmethod
    def forward(ctx, input, weight, eps):
        ctx.save_for_backward(input, weight)
        ctx.eps = eps
        return _forward(input, weight, eps)

    @staticmethod
    def backward(ctx, grad):
        input, weight = ctx.saved_tensors
        need = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() and grad.requires_grad:
            plain = lambda x, w: torch.nn.functional.rms_norm(x, x.shape[-1:], w, ctx.eps)  # noqa: E731
            return *again(plain, (input, weight), grad, need), None
        d_input, d_weight = _backward(grad, input, weight, ctx.eps, *need)
        return d_input if need[0] else None, d_weight if need[1] else None, None

"""group_norm in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, empty_if, needs_torch

_forward, _backward = function("group_norm"), function("group_norm_backward")


@result_of("group_norm")
def _(input, groups, weight, bias, eps):
    return input.new_empty(input.shape)


@result_of("group_norm_backward")
def _(grad, input, groups, weight, bias, eps, need_input, need_weight, need_bias):
    return (
        empty_if(need_input, input, grad),
        empty_if(need_weight, weight, grad),
        empty_if(need_bias, bias, grad),
    )


class GroupNorm(torch.autograd.Function):
    """group_norm with gradients."""

    @staticmethod
    def forward(ctx, input, groups, weight, bias, eps):
        ctx.save_for_backward(input, weight, bias)
        ctx.groups, ctx.eps = groups, eps
        return _forward(input, groups, weight, bias, eps)

    @staticmethod
    def backward(ctx, grad):
        input, weight, bias = ctx.saved_tensors
        need = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:4])
        if needs_torch(grad, input, weight, bias):
            norm = torch.nn.functional.group_norm
            plain = lambda x, w, b: norm(x, ctx.groups, w, b, ctx.eps)  # noqa: E731
            d_input, d_weight, d_bias = again(plain, (input, weight, bias), grad, need)
        else:
            found = _backward(grad, input, ctx.groups, weight, bias, ctx.eps, *need)
            d_input, d_weight, d_bias = (g if n else None for g, n in zip(found, need, strict=True))
        return d_input, None, d_weight, d_bias, None

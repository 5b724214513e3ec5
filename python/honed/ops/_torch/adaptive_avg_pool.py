"""adaptive_avg_pool1d and adaptive_avg_pool2d in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, needs_torch
from honed.ops._torch._pool import anything, empty_result, is_last, spatial

_forward, _backward = function("adaptive_avg_pool"), function("adaptive_avg_pool_backward")


@result_of("adaptive_avg_pool")
def _(input, dims, out_h, out_w):
    return empty_result(input, dims, out_h, out_w)


@result_of("adaptive_avg_pool_backward")
def _(grad, dims, h, w, channels_last):
    return empty_result(grad, dims, h, w, channels_last)


def _plain(dims, out):
    """torch's own, of the input."""
    if dims == 1:
        return lambda x: torch.nn.functional.adaptive_avg_pool1d(x, out[1])
    return lambda x: torch.nn.functional.adaptive_avg_pool2d(x, out)


class AdaptiveAvgPool(torch.autograd.Function):
    """adaptive_avg_pool with a gradient."""

    @staticmethod
    def forward(ctx, input, dims, out_h, out_w):
        ctx.dims, ctx.out = dims, (out_h, out_w)
        ctx.size, ctx.last = spatial(input, dims), is_last(input, dims)
        ctx.shape = input.shape
        return _forward(input, dims, out_h, out_w)

    @staticmethod
    def backward(ctx, grad):
        if needs_torch(grad):
            (d_input,) = again(_plain(ctx.dims, ctx.out), (anything(grad, ctx.shape),), grad, (True,))
        else:
            d_input = _backward(grad, ctx.dims, *ctx.size, ctx.last)
        return d_input, None, None, None

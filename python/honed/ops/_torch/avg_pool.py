"""avg_pool1d and avg_pool2d in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, needs_torch
from honed.ops._torch._pool import anything, empty_result, is_last, pooled, spatial

_forward, _backward = function("avg_pool"), function("avg_pool_backward")


@result_of("avg_pool")
def _(input, dims, kh, kw, sh, sw, ph, pw, ceil_mode, include_padding, divisor):
    h, w = spatial(input, dims)
    return empty_result(input, dims, pooled(h, kh, sh, ph, 1, ceil_mode), pooled(w, kw, sw, pw, 1, ceil_mode))


@result_of("avg_pool_backward")
def _(grad, dims, h, w, kh, kw, sh, sw, ph, pw, ceil_mode, include_padding, divisor, channels_last):
    return empty_result(grad, dims, h, w, channels_last)


def _plain(dims, options):
    """torch's own, of the input."""
    *window, ceil_mode, include_padding, divisor = options
    kernel, stride, padding = (tuple(window[at : at + 2][2 - dims :]) for at in range(0, 6, 2))
    if dims == 1:
        return lambda x: torch.nn.functional.avg_pool1d(
            x, kernel, stride, padding, ceil_mode, include_padding
        )
    return lambda x: torch.nn.functional.avg_pool2d(
        x, kernel, stride, padding, ceil_mode, include_padding, divisor or None
    )


class AvgPool(torch.autograd.Function):
    """avg_pool with a gradient."""

    @staticmethod
    def forward(ctx, input, dims, options):
        ctx.dims, ctx.options = dims, options
        ctx.size, ctx.last = spatial(input, dims), is_last(input, dims)
        ctx.shape = input.shape
        return _forward(input, dims, *options)

    @staticmethod
    def backward(ctx, grad):
        if needs_torch(grad):
            (d_input,) = again(_plain(ctx.dims, ctx.options), (anything(grad, ctx.shape),), grad, (True,))
        else:
            d_input = _backward(grad, ctx.dims, *ctx.size, *ctx.options, ctx.last)
        return d_input, None, None

"""max_pool1d and max_pool2d in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, needs_torch
from honed.ops._torch._pool import empty_result, is_last, pooled, spatial

_forward, _backward = function("max_pool"), function("max_pool_backward")
_SMALL = 128  # taps that int8 codes hold, as ops/_pool.h has it


@result_of("max_pool")
def _(input, dims, kh, kw, sh, sw, ph, pw, dh, dw, ceil_mode, keep_codes, return_indices):
    h, w = spatial(input, dims)
    sizes = pooled(h, kh, sh, ph, dh, ceil_mode), pooled(w, kw, sw, pw, dw, ceil_mode)
    codes = torch.int8 if kh * kw <= _SMALL else torch.int32
    nothing = input.new_empty(0, dtype=torch.float32)
    return (
        empty_result(input, dims, *sizes),
        empty_result(input, dims, *sizes, dtype=codes) if keep_codes else nothing,
        empty_result(input, dims, *sizes, dtype=torch.int64) if return_indices else nothing.clone(),
    )


@result_of("max_pool_backward")
def _(grad, codes, dims, h, w, kh, kw, sh, sw, ph, pw, dh, dw, ceil_mode, channels_last):
    return empty_result(grad, dims, h, w, channels_last)


def _plain(dims, options):
    """torch's own, of the input."""
    window = (options[at : at + 2][2 - dims :] for at in range(0, 8, 2))
    own = torch.nn.functional.max_pool1d if dims == 1 else torch.nn.functional.max_pool2d
    return lambda x: own(x, *window, options[8])


class MaxPool(torch.autograd.Function):
    """max_pool with a gradient, which needs to know which tap each result came from."""

    @staticmethod
    def forward(ctx, input, dims, options, return_indices):
        out, codes, indices = _forward(input, dims, *options, True, return_indices)
        ctx.save_for_backward(input, codes)
        ctx.dims, ctx.options = dims, options
        if return_indices:
            ctx.mark_non_differentiable(indices)
        return out, indices if return_indices else None

    @staticmethod
    def backward(ctx, grad, _):
        input, codes = ctx.saved_tensors
        if needs_torch(grad, input):
            (d_input,) = again(_plain(ctx.dims, ctx.options), (input,), grad, (True,))
        else:
            last = is_last(input, ctx.dims)
            d_input = _backward(grad, codes, ctx.dims, *spatial(input, ctx.dims), *ctx.options, last)
        return d_input, None, None, None

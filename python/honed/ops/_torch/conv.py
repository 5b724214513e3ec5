"""conv in torch: shapes, gradients."""

from honed.ops._library import result_of
from honed.ops._torch._conv_gradient import conv
from honed.ops._torch._layout import empty_image

__all__ = ["conv"]


@result_of("conv")
def _(input, weight, bias, residual, *rest):
    strides, before, after, dilations = (rest[3 * i : 3 * i + 3] for i in range(4))
    n = input.dim() - 2
    sizes = [
        (size + b + a - d * (k - 1) - 1) // s + 1
        for size, k, s, b, a, d in zip(
            input.shape[2:],
            weight.shape[2:],
            strides[-n:],
            before[-n:],
            after[-n:],
            dilations[-n:],
            strict=True,
        )
    ]
    return empty_image(input, (input.shape[0], weight.shape[0], *sizes))

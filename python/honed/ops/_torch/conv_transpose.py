"""conv_transpose in torch: shapes, gradients."""

from honed.ops._library import result_of
from honed.ops._torch._conv_gradient import transposed
from honed.ops._torch._layout import empty_image

__all__ = ["transposed"]


@result_of("conv_transpose")
def _(input, weight, bias, residual, *rest):
    n = input.dim() - 2
    size, groups = rest[12 - n : 12], rest[12]
    return empty_image(input, (input.shape[0], groups * weight.shape[1], *size))

"""conv_transpose in torch: shapes, gradients."""

import torch

from honed.ops._library import result_of
from honed.ops._torch._conv_gradient import transposed

__all__ = ["transposed"]

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@result_of("conv_transpose")
def _(input, weight, bias, residual, *rest):
    n = input.dim() - 2
    size, groups = rest[12 - n : 12], rest[12]
    y = input.new_empty((input.shape[0], groups * weight.shape[1], *size))
    channels_last = not input.is_contiguous() and input.stride(1) == 1 and input.shape[1] > 1
    return y.contiguous(memory_format=_LAYOUTS[n + 2]) if n > 1 and channels_last else y

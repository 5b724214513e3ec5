"""avg_pool1d and avg_pool2d over odd sizes, strides, paddings and divisors, in both layouts."""

import torch

from honed import ops
from honed.testing.spec import REAL, OpSpec
from honed.testing.specs.max_pool import cases, inputs

# kernel_size, stride, padding, ceil_mode, count_include_pad, of two dimensions divisor_override
_WINDOWS = {
    "plain": ((1, 2, 6, 7), (2, 2, 0, False, True, None)),
    "stem": ((2, 3, 11, 9), (3, 2, 1, False, True, None)),
    "line": ((2, 3, 17), (3, 2, 1, True, False)),
    "uncounted": ((2, 3, 11, 39), (3, 2, 1, False, False, None)),
    "ceil": ((1, 3, 12, 70), ((2, 3), (3, 2), (1, 0), True, True, None)),
    "ceil_uncounted": ((1, 3, 12, 9), ((3, 4), (2, 3), (1, 2), True, False, None)),
    "divisor": ((1, 3, 7, 9), ((3, 2), 1, (1, 0), True, True, 5)),
    "uneven": ((2, 5, 13, 37), ((3, 5), (1, 4), (1, 2), False, True, None)),
    "whole": ((2, 19, 13, 17), ((13, 17), (13, 17), 0, False, True, None)),
    "long_stride": ((1, 2, 3, 60), (2, (1, 11), 0, False, True, None)),
    "no_batch": ((0, 3, 8, 8), (2, 2, 0, False, True, None)),
    "unbatched": ((3, 9, 8), (3, 2, 1, False, True, None)),
    "long_line": ((1, 2, 2700), (9, 3, 2, True, False)),
    "channels": ((1, 70, 5, 6), (3, 2, 1, False, True, None)),
}


def _call(one, two):
    return lambda x, params: (one if params["dims"] == 1 else two)(x["input"], *params["window"])


SPEC = OpSpec(
    name="avg_pool",
    cases=tuple(cases(_WINDOWS, {"4x64x56x56": ((4, 64, 56, 56), (2, 2, 0, False, True, None))})),
    inputs=inputs,
    honed=_call(ops.avg_pool1d, ops.avg_pool2d),
    torch=_call(torch.nn.functional.avg_pool1d, torch.nn.functional.avg_pool2d),
    dtypes=REAL,
    gradients=("input",),
    bytes=lambda params, size: size * torch.Size(params["shape"]).numel(),
)

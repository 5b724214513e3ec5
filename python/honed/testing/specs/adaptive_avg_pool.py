"""adaptive_avg_pool1d and adaptive_avg_pool2d to sizes that divide, do not divide and exceed the input's."""

import torch

from honed import ops
from honed.testing.spec import REAL, OpSpec
from honed.testing.specs.max_pool import cases, inputs

_SIZES = {
    "whole": ((2, 5, 7, 7), 1),
    "uneven": ((1, 3, 7, 9), (3, 4)),
    "line": ((2, 3, 17), 5),
    "rows": ((1, 3, 5, 6), (None, 1)),
    "divides": ((2, 3, 8, 12), (4, 3)),
    "larger": ((1, 2, 3, 4), (5, 9)),
    "same": ((2, 2, 3, 5), (3, 5)),
    "unbatched": ((3, 9, 8), 2),
    "no_batch": ((0, 3, 8, 8), 2),
    "wide": ((1, 2, 3, 1500), (1, 7)),
    "channels": ((1, 300, 5, 6), (1, 2)),
    "large": ((1, 3, 70, 90), 1),
}


def _call(one, two):
    return lambda x, params: (one if params["dims"] == 1 else two)(x["input"], params["window"])


SPEC = OpSpec(
    name="adaptive_avg_pool",
    cases=tuple(cases(_SIZES, {"16x512x7x7": ((16, 512, 7, 7), 1), "1x1280x7x7": ((1, 1280, 7, 7), 1)})),
    inputs=inputs,
    honed=_call(ops.adaptive_avg_pool1d, ops.adaptive_avg_pool2d),
    torch=_call(torch.nn.functional.adaptive_avg_pool1d, torch.nn.functional.adaptive_avg_pool2d),
    dtypes=REAL,
    gradients=("input",),
    bytes=lambda params, size: size * torch.Size(params["shape"]).numel(),
)

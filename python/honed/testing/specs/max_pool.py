"""max_pool1d and max_pool2d over odd sizes, strides, paddings and dilations, in both layouts."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

# kernel_size, stride, padding, dilation, ceil_mode
_PLAIN = (2, None, 0, 1, False)
_STEM = (3, 2, 1, 1, False)
_WINDOWS = {
    "stem": ((2, 3, 11, 9), _STEM),
    "plain": ((1, 2, 6, 7), _PLAIN),
    "line": ((2, 3, 17), (3, 2, 1, 1, False)),
    "uneven": ((2, 5, 13, 37), ((3, 5), (1, 2), (1, 2), 1, False)),
    "ceil": ((1, 3, 12, 70), ((2, 3), (3, 2), (1, 0), 1, True)),
    "dilated": ((2, 3, 15, 40), (3, (1, 3), 1, (2, 5), False)),
    "one": ((1, 4, 5, 5), (1, 3, 0, 1, False)),
    "whole": ((2, 19, 13, 17), ((13, 17), None, 0, 1, False)),
    "long_stride": ((1, 2, 3, 60), (2, (1, 11), 0, 1, False)),
    "no_batch": ((0, 3, 8, 8), _STEM),
    "unbatched": ((3, 9, 8), _STEM),
    "long_line": ((1, 2, 2700), (4, 3, 2, 7, True)),
    "channels": ((1, 70, 5, 6), _STEM),
}


def inputs(params, generator):
    x = torch.randn(params["shape"], generator=generator, dtype=torch.float64) * 3
    if params["dims"] == 1:
        return {"input": x.transpose(-1, -2).contiguous().transpose(-1, -2) if params["last"] else x}
    return {"input": x.to(memory_format=torch.channels_last) if params["last"] and x.dim() == 4 else x}


def dims_of(name):
    return 1 if "line" in name else 2


def cases(windows, benches):
    """Every window in both layouts, and what benchmarks time."""
    for last in (False, True):
        end = "_last" if last else ""
        for name, (shape, window) in windows.items():
            yield Case(name + end, {"shape": shape, "window": window, "dims": dims_of(name), "last": last})
        for name, (shape, window) in benches.items():
            yield Case(name + end, {"shape": shape, "window": window, "dims": 2, "last": last}, bench=True)


def _call(one, two):
    return lambda x, params: (one if params["dims"] == 1 else two)(x["input"], *params["window"])


SPEC = OpSpec(
    name="max_pool",
    cases=tuple(
        cases(_WINDOWS, {"1x64x112x112": ((1, 64, 112, 112), _STEM), "4x64x56x56": ((4, 64, 56, 56), _PLAIN)})
    ),
    inputs=inputs,
    honed=_call(ops.max_pool1d, ops.max_pool2d),
    torch=_call(torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d),
    dtypes=REAL,
    gradients=("input",),
    bytes=lambda params, size: size * torch.Size(params["shape"]).numel(),
)

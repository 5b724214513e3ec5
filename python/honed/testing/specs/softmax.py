"""softmax over odd widths, masked rows, other dimensions, few wide rows, a wider result."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1, 1), (3, 7), (5, 16), (2, 3, 33), (1, 576), (3, 1023), (0, 8), (70,)]


def _inputs(params, generator):
    x = torch.randn(params["shape"], generator=generator, dtype=torch.float64) * params.get("scale", 3)
    if "masked" in params:  # the last so many of every row; of the first row all
        x[..., x.shape[-1] - params["masked"] :] = -torch.inf
        x[0] = -torch.inf
    return {"input": x}


def call(function):
    def run(x, params):
        wide = x["input"].dtype == torch.float64
        return function(x["input"], params.get("dim", -1), dtype=None if wide else params.get("dtype"))

    return run


SPEC = OpSpec(
    name="softmax",
    cases=(
        *(Case("x".join(map(str, s)), {"shape": s}) for s in _SHAPES[:3]),
        Case("masked", {"shape": (4, 37), "masked": 20}),
        Case("to_float32", {"shape": (4, 37), "dtype": torch.float32, "scale": 1}),
        Case("large", {"shape": (4, 37), "scale": 100}),
        *(Case("x".join(map(str, s)), {"shape": s}) for s in _SHAPES[3:]),
        Case("first_dim", {"shape": (5, 9), "dim": 0}),
        Case("middle_dim", {"shape": (2, 6, 70), "dim": 1}),
        Case("masked_dim", {"shape": (4, 3, 37), "dim": 0, "masked": 20}),
        Case("wide", {"shape": (2, 33000)}),
        Case("wide_masked", {"shape": (3, 33000), "masked": 20000}),
        Case("wide_to_float32", {"shape": (2, 33000), "dtype": torch.float32}),
        Case("1x576", {"shape": (1, 576)}, bench=True),
        Case("512x768", {"shape": (512, 768)}, bench=True),
    ),
    inputs=_inputs,
    honed=call(ops.softmax),
    torch=call(torch.nn.functional.softmax),
    dtypes=REAL,
    gradients=("input",),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"]).numel(),
)

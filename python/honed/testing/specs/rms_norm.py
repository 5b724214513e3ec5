"""rms_norm over odd widths, one row, many rows, no rows."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1, 1), (3, 7), (5, 16), (2, 3, 33), (1, 576), (7, 1023), (0, 8), (4, 65)]


def _inputs(params, generator):
    shape, dims = params["shape"], params.get("dims", 1)
    return {
        "input": torch.randn(shape, generator=generator, dtype=torch.float64) * 3,
        "weight": torch.randn(shape[-dims:], generator=generator, dtype=torch.float64)
        if params["weight"]
        else None,
    }


def _call(function):
    return lambda x, params: function(
        x["input"], params["shape"][-params.get("dims", 1) :], x["weight"], 1e-5
    )


SPEC = OpSpec(
    name="rms_norm",
    cases=(
        *(Case("x".join(map(str, s)), {"shape": s, "weight": True}) for s in _SHAPES),
        Case("two_dims", {"shape": (4, 3, 25), "weight": True, "dims": 2}),
        Case("no_weight", {"shape": (3, 50), "weight": False}),
        Case("1x576", {"shape": (1, 576), "weight": True}, bench=True),
        Case("512x768", {"shape": (512, 768), "weight": True}, bench=True),
    ),
    inputs=_inputs,
    honed=_call(ops.rms_norm),
    torch=_call(torch.nn.functional.rms_norm),
    dtypes=REAL,
    gradients=("input", "weight"),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"]).numel(),
)

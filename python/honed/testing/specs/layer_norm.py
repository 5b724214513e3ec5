"""layer_norm over odd widths, one row, many rows, no rows, two dimensions."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1, 2), (3, 7), (5, 16), (2, 3, 33), (1, 576), (7, 1023), (0, 8), (4, 65)]


def _inputs(params, generator):
    shape, dims = params["shape"], params.get("dims", 1)

    def vector(name):
        return (
            torch.randn(shape[-dims:], generator=generator, dtype=torch.float64)
            if name in params["with"]
            else None
        )

    return {
        "input": torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 1,
        "weight": vector("weight"),
        "bias": vector("bias"),
    }


def _call(function):
    return lambda x, params: function(
        x["input"], params["shape"][-params.get("dims", 1) :], x["weight"], x["bias"], 1e-5
    )


_BOTH = ("weight", "bias")

SPEC = OpSpec(
    name="layer_norm",
    cases=(
        *(Case("x".join(map(str, s)), {"shape": s, "with": _BOTH}) for s in _SHAPES),
        Case("plain", {"shape": (3, 50), "with": ()}),
        Case("no_bias", {"shape": (3, 50), "with": ("weight",)}),
        Case("no_weight", {"shape": (3, 50), "with": ("bias",)}),
        Case("two_dims", {"shape": (4, 3, 25), "with": _BOTH, "dims": 2}),
        Case("wide", {"shape": (3, 9000), "with": _BOTH}),
        Case("1x576", {"shape": (1, 576), "with": _BOTH}, bench=True),
        Case("512x768", {"shape": (512, 768), "with": _BOTH}, bench=True),
    ),
    inputs=_inputs,
    honed=_call(ops.layer_norm),
    torch=_call(torch.nn.functional.layer_norm),
    dtypes=REAL,
    gradients=("input", "weight", "bias"),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"]).numel(),
)

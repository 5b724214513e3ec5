"""add_layer_norm over odd widths, one row, many rows, no rows, two dimensions."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1, 2), (3, 7), (5, 16), (2, 3, 33), (1, 576), (40, 65), (0, 8)]
_BOTH = ("weight", "bias")


def _inputs(params, generator):
    shape, dims = params["shape"], params.get("dims", 1)

    def values(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    made = {"input": values(shape) * 3, "residual": values(shape)}
    for name in ("weight", "bias"):
        made[name] = values(shape[-dims:]) if name in params["with"] else None
    return made


def _call(function):
    return lambda x, params: function(
        x["input"], x["residual"], params["shape"][-params.get("dims", 1) :], x["weight"], x["bias"], 1e-5
    )


def _torch(input, residual, shape, weight, bias, eps):
    s = input + residual
    return torch.nn.functional.layer_norm(s, shape, weight, bias, eps), s


SPEC = OpSpec(
    name="add_layer_norm",
    cases=(
        *(Case("x".join(map(str, s)), {"shape": s, "with": _BOTH}) for s in _SHAPES),
        Case("plain", {"shape": (3, 50), "with": ()}),
        Case("two_dims", {"shape": (4, 3, 25), "with": _BOTH, "dims": 2}),
        Case("1x576", {"shape": (1, 576), "with": _BOTH}, bench=True),
        Case("512x768", {"shape": (512, 768), "with": _BOTH}, bench=True),
    ),
    inputs=_inputs,
    honed=_call(ops.add_layer_norm),
    torch=_call(_torch),
    dtypes=REAL,
    gradients=("input", "residual", "weight", "bias"),
    bytes=lambda params, size: 4 * size * torch.Size(params["shape"]).numel(),
)

"""group_norm over few and many channels a group, one and many positions."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1, 4, 3), (3, 6, 5, 7), (2, 8, 33), (2, 4, 1, 1), (3, 6)]
_BOTH = ("weight", "bias")


def _inputs(params, generator):
    shape = params["shape"]

    def values(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    made = {"input": values(*shape) * 3 + 1}
    for name in _BOTH:
        made[name] = values(shape[1]) if name in params["with"] else None
    return made


def _call(function):
    return lambda x, params: function(x["input"], params["groups"], x["weight"], x["bias"], 1e-5)


SPEC = OpSpec(
    name="group_norm",
    cases=(
        *(Case("x".join(map(str, s)), {"shape": s, "groups": 2, "with": _BOTH}) for s in _SHAPES),
        Case("plain", {"shape": (2, 6, 9), "groups": 3, "with": ()}),
        Case("no_bias", {"shape": (2, 6, 9), "groups": 6, "with": ("weight",)}),
        Case("no_weight", {"shape": (2, 6, 9), "groups": 1, "with": ("bias",)}),
        Case("wide", {"shape": (2, 4, 70, 70), "groups": 2, "with": _BOTH}),
        Case("8x64x56x56", {"shape": (8, 64, 56, 56), "groups": 32, "with": _BOTH}, bench=True),
    ),
    inputs=_inputs,
    honed=_call(ops.group_norm),
    torch=_call(torch.nn.functional.group_norm),
    dtypes=REAL,
    gradients=("input", *_BOTH),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"]).numel(),
)

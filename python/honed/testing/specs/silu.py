"""silu over odd sizes and the whole range of values."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1,), (3, 7), (5, 16), (2, 3, 33), (1, 576), (3, 1023), (0, 8), (), (4100,)]


def _inputs(params, generator):
    return {
        "input": torch.randn(params["shape"], generator=generator, dtype=torch.float64)
        * params.get("scale", 3)
    }


SPEC = OpSpec(
    name="silu",
    cases=(
        *(Case("x".join(map(str, s)) or "scalar", {"shape": s}) for s in _SHAPES),
        Case("large", {"shape": (9, 50), "scale": 100}),
        Case("1x576", {"shape": (1, 576)}, bench=True),
        Case("512x3072", {"shape": (512, 3072)}, bench=True),
    ),
    inputs=_inputs,
    honed=lambda x, params: ops.silu(x["input"]),
    torch=lambda x, params: torch.nn.functional.silu(x["input"]),
    dtypes=REAL,
    gradients=("input",),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"]).numel(),
)

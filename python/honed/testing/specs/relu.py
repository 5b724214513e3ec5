"""relu over odd sizes."""

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
    name="relu",
    cases=(
        *(Case("x".join(map(str, s)) or "scalar", {"shape": s}) for s in _SHAPES),
        Case("1x576", {"shape": (1, 576)}, bench=True),
        Case("512x3072", {"shape": (512, 3072)}, bench=True),
    ),
    inputs=_inputs,
    honed=lambda x, params: ops.relu(x["input"]),
    torch=lambda x, params: torch.nn.functional.relu(x["input"]),
    dtypes=REAL,
    gradients=("input",),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"]).numel(),
)

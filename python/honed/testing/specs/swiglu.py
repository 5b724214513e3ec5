"""swiglu of two tensors and of the halves of one."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1,), (3, 7), (5, 16), (2, 3, 33), (1, 576), (3, 1023), (0, 8), (), (4100,)]


def _inputs(params, generator):
    shape, halves = params["shape"], params.get("halves", False)

    def draw(shape, scale=1):
        return torch.randn(shape, generator=generator, dtype=torch.float64) * scale

    gate = (*shape[:-1], 2 * shape[-1]) if halves else shape
    return {"gate": draw(gate, params.get("scale", 3)), "up": None if halves else draw(shape)}


def both(x):
    return x["gate"].chunk(2, -1) if x["up"] is None else (x["gate"], x["up"])


def _torch(x, params):
    gate, up = both(x)
    return torch.nn.functional.silu(gate) * up


SPEC = OpSpec(
    name="swiglu",
    cases=(
        Case("halves", {"shape": (4, 9), "halves": True}),
        Case("halves_of_one_row", {"shape": (1, 70), "halves": True}),
        Case("large", {"shape": (9, 50), "scale": 100}),
        *(Case("x".join(map(str, s)) or "scalar", {"shape": s}) for s in _SHAPES),
        Case("1x576", {"shape": (1, 576)}, bench=True),
        Case("512x3072", {"shape": (512, 3072)}, bench=True),
        Case("512x3072_halves", {"shape": (512, 3072), "halves": True}, bench=True),
    ),
    inputs=_inputs,
    honed=lambda x, params: ops.swiglu(x["gate"], x["up"]),
    torch=_torch,
    dtypes=REAL,
    gradients=("gate", "up"),
    bytes=lambda params, size: 3 * size * torch.Size(params["shape"]).numel(),
)

"""rope: both layouts, whole and partial rotation, positions given and not."""

import torch

from honed import ops
from honed.ops._torch.rope import composed as _composed
from honed.testing.spec import REAL, Case, OpSpec

_ROWS = 40  # of the tables


def _inputs(params, generator):
    shape, kind = params["shape"], params.get("positions")
    angles = torch.rand(_ROWS, params["rotary"] // 2, generator=generator, dtype=torch.float64) * 7
    where = {"batch": shape[:2], "shared": shape[1:2]}
    return {
        "x": torch.randn(shape, generator=generator, dtype=torch.float64),
        "cos": angles.cos().float(),
        "sin": angles.sin().float(),
        "positions": torch.randint(_ROWS, where[kind], generator=generator) if kind else None,
    }


def _honed(x, params):
    return ops.rope(x["x"], x["cos"], x["sin"], x["positions"], interleaved=params.get("interleaved", False))


def _torch(x, params):
    return _composed(x["x"], x["cos"], x["sin"], x["positions"], params.get("interleaved", False))


def _cases(interleaved):
    tail = "_interleaved" if interleaved else ""
    for name, params in {
        "odd": {"shape": (2, 3, 5, 34), "rotary": 34},
        "partial": {"shape": (2, 3, 2, 80), "rotary": 20, "positions": "batch"},
        "shared": {"shape": (2, 4, 1, 64), "rotary": 64, "positions": "shared"},
        "tiny": {"shape": (1, 1, 1, 2), "rotary": 2},
        "empty": {"shape": (1, 0, 2, 8), "rotary": 8},
        "no_rotation": {"shape": (1, 2, 2, 8), "rotary": 0},
    }.items():
        yield Case(name + tail, {**params, "interleaved": interleaved})


SPEC = OpSpec(
    name="rope",
    cases=(
        *(case for pair in zip(_cases(False), _cases(True), strict=True) for case in pair),
        Case("1x1x9x64", {"shape": (1, 1, 9, 64), "rotary": 64}, bench=True),
        Case("4x32x9x64", {"shape": (4, 32, 9, 64), "rotary": 64}, bench=True),
    ),
    inputs=_inputs,
    honed=_honed,
    torch=_torch,
    dtypes=REAL,
    gradients=("x",),
    keep=frozenset(("cos", "sin")),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"]).numel(),
)

"""dropout: the mask in whole numbers here, the same bits in every kernel."""

import numpy as np
import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1,), (3, 7), (5, 16), (2, 3, 33), (0, 8), (), (3, 1023), (4100,), (9000,)]


def _mix(x):
    """Stafford's mix 13 of splitmix64, on whole numbers below 2^64."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def kept(count, p, seed):
    """Which of so many elements stay."""
    bits = np.empty(count, np.uint32)
    for row in range(-(-count // 2**20)):
        key = _mix((_mix((seed + 0x9E3779B97F4A7C15) % 2**64) + (row + 1) * 0x9E3779B97F4A7C15) % 2**64)
        x = np.arange(min(2**20, count - row * 2**20), dtype=np.uint32) + np.uint32(key % 2**32)
        x = (x ^ x >> 16) * np.uint32(0x7FEB352D)
        x = (x ^ x >> 15 ^ np.uint32(key >> 32)) * np.uint32(0x846CA68B)
        bits[row * 2**20 : (row + 1) * 2**20] = x ^ x >> 16
    return torch.from_numpy(bits >= int(p * 2**32) if p < 1 else np.zeros(count, bool))


def _inputs(params, generator):
    return {"input": torch.randn(params["shape"], generator=generator, dtype=torch.float64)}


def _torch(x, params):
    t, p = x["input"], params.get("p", 0.3)
    if p == 0:
        return t
    mask = kept(t.numel(), p, params.get("seed", 5)).view(t.shape)
    return torch.where(mask, t * (1 / (1 - p) if p < 1 else 0), 0)


SPEC = OpSpec(
    name="dropout",
    cases=(
        *(Case("x".join(map(str, s)) or "scalar", {"shape": s}) for s in _SHAPES),
        Case("none", {"shape": (3, 5), "p": 0.0}),
        Case("all", {"shape": (3, 5), "p": 1.0}),
        Case("seed", {"shape": (4, 50), "p": 0.9, "seed": 2**62 + 12345}),
        Case("several_rows_of_bits", {"shape": (3, 400000)}),
        Case("1x576", {"shape": (1, 576)}, bench=True),
        Case("512x3072", {"shape": (512, 3072)}, bench=True),
    ),
    inputs=_inputs,
    honed=lambda x, params: ops.dropout(x["input"], params.get("p", 0.3), seed=params.get("seed", 5)),
    torch=_torch,
    dtypes=REAL,
    gradients=("input",),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"]).numel(),
)

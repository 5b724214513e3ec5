"""embedding over odd widths and shapes of ids."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [((1,), 5, 1), ((3,), 7, 33), ((2, 5), 11, 16), ((), 4, 9), ((0,), 4, 9), ((70,), 300, 65)]


def _inputs(params, generator):
    ids, rows, columns = params["shape"]
    return {
        "input": torch.randint(rows, ids, generator=generator, dtype=params.get("ids", torch.int64)),
        "weight": torch.randn(rows, columns, generator=generator, dtype=torch.float64),
    }


def _call(function):
    return lambda x, params: function(
        x["input"],
        x["weight"],
        params.get("padding_idx"),
        scale_grad_by_freq=params.get("scale_grad_by_freq", False),
    )


SPEC = OpSpec(
    name="embedding",
    cases=(
        Case("int32", {"shape": ((2, 3), 9, 20), "ids": torch.int32}),
        Case("one_row", {"shape": ((3, 50), 1, 150)}),
        *(Case("x".join(map(str, ids)) or "scalar", {"shape": (ids, *rest)}) for ids, *rest in _SHAPES),
        # Their gradients are no derivatives: behind those that finite differences check.
        Case("padding_idx", {"shape": ((9,), 3, 20), "padding_idx": -1}),
        Case("by_frequency", {"shape": ((4, 10), 3, 20), "scale_grad_by_freq": True, "padding_idx": 0}),
        Case("1", {"shape": ((1, 1), 1000, 576)}, bench=True),
        Case("512", {"shape": ((1, 512), 1000, 768)}, bench=True),
    ),
    inputs=_inputs,
    honed=_call(ops.embedding),
    torch=_call(torch.nn.functional.embedding),
    dtypes=REAL,
    exact=True,
    gradients=("weight",),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"][0]).numel() * params["shape"][2],
)

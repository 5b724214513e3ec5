"""matmul of vectors, matrices and batches, broadcast, with odd sizes and without elements."""

import torch

from honed import ops
from honed.testing.spec import Case, OpSpec


def _case(a, b, scale=1.0, bench=False):
    name = "_".join("x".join(map(str, shape)) for shape in (a, b)) + (f"_scale{scale}" if scale != 1 else "")
    return Case(name, {"a": a, "b": b, "scale": scale}, bench)


def _inputs(params, generator):
    def draw(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return {"input": draw(params["a"]), "other": draw(params["b"])}


def _torch(x, params):
    return torch.matmul(x["input"], x["other"]) * params["scale"]


def _flops(params):
    rows = torch.Size(params["a"][:-1]).numel()
    return 2 * rows * torch.Size(params["b"][-2:]).numel()


SPEC = OpSpec(
    name="matmul",
    cases=(
        _case((7, 33), (33, 19)),
        _case((2, 3, 5, 17), (17, 9), 0.25),
        _case((1, 65), (65, 40), -2.0),
        _case((2, 1, 3, 17), (5, 17, 9)),
        _case((33, 20), (20, 1)),
        _case((6, 10), (3, 10, 7)),
        _case((1, 1), (1, 1)),
        _case((9,), (9,)),
        _case((9,), (9, 5)),
        _case((5, 9), (9,)),
        _case((4, 5, 9), (9,)),
        _case((9,), (4, 9, 5)),
        _case((0, 5), (5, 3)),
        _case((4, 0), (0, 3)),
        _case((2, 0, 5), (5, 3)),
        _case((130, 70), (70, 66)),
        _case((8, 8), (8, 8), bench=True),
        _case((128, 576), (576, 576), bench=True),
        _case((8, 64, 64), (8, 64, 64), bench=True),
    ),
    inputs=_inputs,
    honed=lambda x, params: ops.matmul(x["input"], x["other"], scale=params["scale"]),
    torch=_torch,
    flops=_flops,
)

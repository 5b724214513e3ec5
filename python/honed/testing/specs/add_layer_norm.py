"""add_layer_norm over odd widths, one row, many rows, no rows, two dimensions."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1, 2), (3, 7), (5, 16), (2, 3, 33), (1, 576), (40, 65), (0, 8)]


def _inputs(params, generator):
    shape, dims = params["shape"], params.get("dims", 1)

    def values(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    made = {"input": values(shape) * 3, "residual": values(shape)}
    for name, given in params["parameters"].items():
        made[name] = values(shape[-dims:]) if given else None
    return made


def _call(function):
    def run(x, params):
        parameters = [x[name] for name in params["parameters"]]
        shape = params["shape"][-params.get("dims", 1) :]
        return function(x["input"], x["residual"], shape, *parameters, 1e-5)

    return run


def spec(name, honed, plain, *parameters) -> OpSpec:
    """Of an add_norm; ``plain`` is torch's norm."""

    def composed(input, residual, *more):
        s = input + residual
        return plain(s, *more), s

    def case(name, shape, given=True, bench=False, **more):
        return Case(
            name, {"shape": shape, "parameters": dict.fromkeys(parameters, given), **more}, bench=bench
        )

    return OpSpec(
        name=name,
        cases=(
            *(case("x".join(map(str, s)), s) for s in _SHAPES),
            case("plain", (3, 50), given=False),
            case("two_dims", (4, 3, 25), dims=2),
            case("1x576", (1, 576), bench=True),
            case("512x768", (512, 768), bench=True),
        ),
        inputs=_inputs,
        honed=_call(honed),
        torch=_call(composed),
        dtypes=REAL,
        gradients=("input", "residual", *parameters),
        bytes=lambda params, size: 4 * size * torch.Size(params["shape"]).numel(),
    )


SPEC = spec("add_layer_norm", ops.add_layer_norm, torch.nn.functional.layer_norm, "weight", "bias")

"""gelu, both formulas, over odd sizes and the whole range of values."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = [(1,), (3, 7), (5, 16), (2, 3, 33), (0, 8), (), (1, 576), (3, 1023), (4100,)]


def _inputs(params, generator):
    return {
        "input": torch.randn(params["shape"], generator=generator, dtype=torch.float64)
        * params.get("scale", 3)
    }


def twin(x, approximate):
    """torch's own; in float64 by the sigmoid, because 1 + tanh loses what is left far below 0."""
    if approximate == "tanh" and x.dtype == torch.float64:
        return x * torch.sigmoid((8 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))
    return torch.nn.functional.gelu(x, approximate=approximate)


def _call(function):
    return lambda x, params: function(x["input"], params.get("approximate", "none"))


SPEC = OpSpec(
    name="gelu",
    cases=(
        Case("tanh", {"shape": (7, 65), "approximate": "tanh"}),
        Case("large_tanh", {"shape": (9, 50), "approximate": "tanh", "scale": 100}),
        Case("large", {"shape": (9, 50), "scale": 100}),
        *(Case("x".join(map(str, s)) or "scalar", {"shape": s}) for s in _SHAPES),
        Case("1x576", {"shape": (1, 576)}, bench=True),
        Case("512x3072", {"shape": (512, 3072)}, bench=True),
        Case("512x3072_tanh", {"shape": (512, 3072), "approximate": "tanh", "scale": 1}, bench=True),
    ),
    inputs=_inputs,
    honed=_call(ops.gelu),
    torch=_call(twin),
    dtypes=REAL,
    gradients=("input",),
    bytes=lambda params, size: 2 * size * torch.Size(params["shape"]).numel(),
)

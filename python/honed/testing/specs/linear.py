"""linear over one row, few rows, many rows, odd sizes, every epilogue; weights as they are."""

import torch

from honed import ops
from honed.testing.spec import Case, OpSpec

_TORCH = {
    "none": lambda y: y,
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda y: torch.nn.functional.gelu(y, approximate="tanh"),
    "silu": torch.nn.functional.silu,
}


def _case(m, n, k, activation="none", bias=True, residual=False, bench=False):
    parts = [f"{m}x{n}x{k}", activation, "residual" if residual else ""]
    params = {"shape": (m, n, k), "activation": activation, "bias": bias, "residual": residual}
    return Case("_".join(p for p in parts if p), params, bench)


def _inputs(params, generator):
    m, n, k = params["shape"]

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return {
        "input": draw(m, k),
        "weight": draw(n, k) / max(k, 1) ** 0.5,
        "bias": draw(n) if params["bias"] else None,
        "residual": draw(m, n) if params["residual"] else None,
    }


def _honed(x, params):
    packed = ops.quantize_weight(x["weight"], "exact", bias=x["bias"])
    return ops.linear(x["input"], packed, activation=params["activation"], residual=x["residual"])


def _torch(x, params):
    y = _TORCH[params["activation"]](torch.nn.functional.linear(x["input"], x["weight"], x["bias"]))
    return y if x["residual"] is None else y + x["residual"]


SPEC = OpSpec(
    name="linear",
    cases=(
        _case(1, 1, 1),
        _case(1, 33, 7, "relu"),
        _case(2, 64, 65, "gelu", residual=True),
        _case(3, 31, 128, "gelu_tanh", bias=False),
        _case(7, 100, 33, "silu", residual=True),
        _case(15, 32, 64),
        _case(0, 8, 8),
        _case(29, 70, 129, "silu"),
        *(_case(m, n, k, bench=True) for m in (1, 8, 512) for n, k in ((576, 576), (3072, 576), (768, 768))),
    ),
    inputs=_inputs,
    honed=_honed,
    torch=_torch,
    flops=lambda params: 2 * torch.Size(params["shape"]).numel(),
)

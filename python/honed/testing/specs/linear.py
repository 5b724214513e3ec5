"""linear over one row, few and many rows, odd sizes, every epilogue; packed and plain weights, unrounded."""

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
_SCALE = 0.5  # of the update of low rank


def _case(m, n, k, activation="none", bias=True, residual=False, plain=False, scale=1.0, rank=0, bench=False):
    words = {
        "residual": residual,
        "plain": plain,
        f"scale{scale}": scale != 1,
        f"lora{rank}": rank,
    }
    parts = [f"{m}x{n}x{k}", activation, *(word for word, said in words.items() if said)]
    params = {"shape": (m, n, k), "activation": activation, "bias": bias, "residual": residual}
    return Case("_".join(parts), {**params, "plain": plain, "scale": scale, "rank": rank}, bench)


def _inputs(params, generator):
    m, n, k = params["shape"]
    rank = params["rank"]

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return {
        "input": draw(m, k),
        "weight": draw(n, k) / max(k, 1) ** 0.5,
        "bias": draw(n) if params["bias"] else None,
        "residual": draw(m, n) if params["residual"] else None,
        "a": draw(rank, k) / max(k, 1) ** 0.5 if rank else None,
        "b": draw(n, rank) if rank else None,
    }


def _honed(x, params):
    options = {
        "activation": params["activation"],
        "residual": x["residual"],
        "scale": params["scale"],
        "lora": (x["a"], x["b"], _SCALE) if params["rank"] else None,
    }
    if params["plain"]:
        return ops.linear(x["input"], x["weight"], x["bias"], **options)
    return ops.linear(x["input"], ops.quantize_weight(x["weight"], "exact", bias=x["bias"]), **options)


def _torch(x, params):
    linear = torch.nn.functional.linear
    if params["scale"] == 1 and not params["rank"]:
        y = linear(x["input"], x["weight"], x["bias"])
    else:
        y = linear(x["input"], x["weight"]) * params["scale"]
        if params["rank"]:
            y = y + linear(linear(x["input"], x["a"]), x["b"]) * _SCALE
        y = y if x["bias"] is None else y + x["bias"]
    y = _TORCH[params["activation"]](y)
    return y if x["residual"] is None else y + x["residual"]


SPEC = OpSpec(
    name="linear",
    cases=(
        _case(1, 1, 1),
        _case(1, 33, 7, "relu"),
        _case(2, 64, 65, "gelu", residual=True),
        _case(5, 34, 67, "silu", residual=True, plain=True),
        _case(3, 31, 40, scale=0.3, rank=4, residual=True, plain=True),
        _case(4, 37, 33, "gelu", scale=2.0, rank=3),
        _case(3, 31, 128, "gelu_tanh", bias=False),
        _case(7, 100, 33, "silu", residual=True),
        _case(15, 32, 64),
        _case(0, 8, 8),
        _case(29, 70, 129, "silu"),
        _case(1, 1, 1, plain=True),
        _case(1, 65, 30, "relu", bias=False, plain=True),
        _case(17, 3, 129, "gelu_tanh", scale=-1.5, plain=True),
        _case(0, 8, 8, plain=True),
        _case(3, 8, 0, plain=True),
        _case(9, 20, 30, "silu", rank=1, bias=False, plain=True),
        *(_case(m, n, k, bench=True) for m in (1, 8, 512) for n, k in ((576, 576), (3072, 576), (768, 768))),
        *(_case(m, 576, 576, plain=True, bench=True) for m in (1, 512)),
        _case(1, 8, 8, plain=True, bench=True),
    ),
    inputs=_inputs,
    honed=_honed,
    torch=_torch,
    flops=lambda params: 2 * torch.Size(params["shape"]).numel(),
)

"""scaled_dot_product_attention: odd lengths and head sizes, shared heads, masks, few and many queries."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec


def _case(name, b, h, kv, t, s, d, *, causal=False, mask=None, scale=None, dv=None, bench=False):
    params = {"q": (b, h, t, d), "k": (b, kv, s, d), "v": (b, kv, s, dv or d)}
    return Case(name, {**params, "causal": causal, "mask": mask, "scale": scale}, bench=bench)


def _inputs(params, generator):
    made = {
        name[0]: torch.randn(params[name], generator=generator, dtype=torch.float64)
        for name in ("q", "k", "v")
    }
    made["mask"] = None
    if params["mask"]:
        kind, shape = params["mask"]
        made["mask"] = torch.randn(shape, generator=generator, dtype=torch.float64)
        if kind == "bool":
            made["mask"] = made["mask"] > -0.5
        if kind == "none":
            made["mask"] = torch.zeros(shape, dtype=torch.bool)
    return made


def _call(function):
    def call(x, params):
        gqa = params["q"][1] != params["k"][1]
        return function(
            x["q"], x["k"], x["v"], x["mask"], 0.0, params["causal"], scale=params["scale"], enable_gqa=gqa
        )

    return call


def _flops(params):
    b, h, t, d = params["q"]
    s, dv = params["v"][2:]
    return 2 * b * h * t * s * (d + dv) / (2 if params["causal"] else 1)


SPEC = OpSpec(
    name="scaled_dot_product_attention",
    dtypes=REAL,
    gradients=("q", "k", "v"),
    cases=(
        _case("many_odd", 2, 3, 3, 37, 71, 33),
        _case("causal_shared", 1, 6, 2, 67, 67, 64, causal=True),
        _case("few_odd", 2, 4, 2, 3, 301, 33),
        _case("bool_mask", 2, 3, 3, 21, 45, 16, mask=("bool", (2, 1, 21, 45))),
        _case("float_mask", 2, 3, 3, 21, 45, 80, mask=("float", (3, 21, 45))),
        _case("few_masked", 2, 3, 3, 2, 145, 24, mask=("bool", (2, 1, 1, 145))),
        _case("row_mask", 1, 2, 2, 9, 17, 8, mask=("float", (9, 1))),
        _case("one", 1, 1, 1, 1, 1, 1),
        _case("causal_wide", 2, 3, 1, 9, 70, 128, causal=True),
        _case("causal_tall", 1, 2, 2, 133, 70, 72, causal=True),
        _case("few_causal", 1, 2, 2, 4, 3, 40, causal=True),
        _case("shared_odd", 1, 5, 1, 30, 129, 48, dv=17),
        _case("few_wide", 1, 3, 1, 4, 129, 256, dv=129),
        _case("large_heads", 1, 2, 2, 33, 35, 250, scale=0.01),
        _case("nothing_seen", 1, 2, 2, 6, 5, 16, mask=("none", (6, 5))),
        _case("few_nothing_seen", 1, 2, 2, 1, 130, 16, mask=("none", (1, 130))),
        _case("no_keys", 1, 2, 2, 5, 0, 16),
        _case("no_queries", 1, 2, 2, 0, 5, 16),
        _case("no_batch", 0, 2, 2, 5, 5, 16),
        _case("prefill_512", 1, 9, 3, 512, 512, 64, causal=True, bench=True),
        _case("encoder_8x128", 8, 12, 12, 128, 128, 32, bench=True),
        _case("decode_1024", 1, 9, 3, 1, 1024, 64, bench=True),
    ),
    inputs=_inputs,
    honed=_call(ops.scaled_dot_product_attention),
    torch=_call(torch.nn.functional.scaled_dot_product_attention),
    flops=_flops,
    bytes=lambda params, size: (
        size
        * (
            2 * torch.Size(params["q"]).numel()
            + torch.Size(params["k"]).numel()
            + torch.Size(params["v"]).numel()
        )
    ),
)

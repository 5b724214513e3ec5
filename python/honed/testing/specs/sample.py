"""sample against its definition in float64, with the same uniform numbers."""

import torch

from honed import _core, ops
from honed.testing.spec import Case, OpSpec


def kept_weights(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """The definition, by sorting: ``exp(x - max x)`` of kept tokens in float64, 0 for the others."""
    x = (logits.float() / temperature).double()
    weights = (x - x.amax(-1, keepdim=True)).exp()
    if 0 < top_k < x.shape[-1]:
        weights = weights.masked_fill(x < x.topk(top_k).values[..., -1:], 0)
    if top_p < 1:
        order = x.masked_fill(weights == 0, -torch.inf).argsort(dim=-1, stable=True)
        drop = weights.gather(-1, order).cumsum(-1) <= (1 - top_p) * weights.sum(-1, keepdim=True)
        drop[..., -1] = False
        weights = weights.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), 0)
    return weights.masked_fill(weights < min_p, 0)


def choose(weights, seeds, counter):
    """Inverse cumulative distribution in vocabulary order."""
    sums = weights.cumsum(-1)
    uniform = torch.tensor([_core.random_uniform(seed, counter) for seed in seeds], dtype=torch.float64)
    return (sums <= uniform[:, None] * sums[:, -1:]).sum(-1)


def _inputs(params, generator):
    return {"logits": torch.randn(params["shape"], generator=generator, dtype=torch.float64) * 3}


def _options(params):
    return {name: params[name] for name in ("temperature", "top_k", "top_p", "min_p") if name in params}


def _honed(x, params):
    seeds = range(params["shape"][0])
    return ops.sample(
        x["logits"], do_sample=params.get("do_sample", True), seeds=seeds, counter=3, **_options(params)
    )


def _torch(x, params):
    if not params.get("do_sample", True):
        return x["logits"].argmax(-1)
    return choose(kept_weights(x["logits"], **_options(params)), range(params["shape"][0]), 3)


_COMMON = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}

SPEC = OpSpec(
    name="sample",
    cases=(
        Case("plain", {"shape": (9, 33)}),
        Case("top_k", {"shape": (7, 1003), "top_k": 7}),
        Case("top_k_many", {"shape": (7, 1003), "top_k": 400, "temperature": 2.0}),
        Case("top_p", {"shape": (7, 1003), "top_p": 0.7}),
        Case("min_p", {"shape": (7, 1003), "min_p": 0.1}),
        Case("all", {"shape": (5, 5001), **_COMMON, "min_p": 0.02}),
        Case("one_token", {"shape": (2, 1), **_COMMON}),
        Case("no_rows", {"shape": (0, 5)}),
        Case("greedy", {"shape": (3, 2051), "do_sample": False}),
        Case("gpt2", {"shape": (1, 50257), **_COMMON}, bench=True),
        Case("gpt2_no_top_k", {"shape": (1, 50257), **_COMMON, "top_k": 0}, bench=True),
        Case("gpt2_greedy", {"shape": (1, 50257), "do_sample": False}, bench=True),
    ),
    inputs=_inputs,
    honed=_honed,
    torch=_torch,
    exact=True,
    bytes=lambda params, size: size * torch.Size(params["shape"]).numel(),
)

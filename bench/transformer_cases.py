"""Cases of bench/transformer.py: the same work by honed and by torch, and how much it is. Here: attention."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from honed import ops

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
MOST_FLOPS = 3e10  # a call of the attention grids takes at most a fraction of a second
ATTENTION = {
    "batches": (1, 4, 16),
    "heads": (8, 12, 32),
    "sizes": (32, 64, 80, 128),
    "lengths": (64, 128, 512, 2048, 8192),
}


@dataclass
class Case:
    """``calls``: what is timed, by provider. ``results``: the tensors compared with ``reference()``."""

    suite: str
    name: str
    dtype: str
    calls: dict[str, Callable]
    results: dict[str, Callable]
    reference: Callable  # float64
    flops: float = 0.0
    bytes: float = 0.0
    base: str = "torch"  # what ratios are of


def random(*shape, dtype, seed=0, grad=False):
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(dtype)
    return made.requires_grad_() if grad else made


def _wide(*tensors):
    return [None if t is None else t.detach().double() for t in tensors]


def _gradients(function, tensors, grad):
    def call():
        return torch.autograd.grad(function(*tensors), tensors, grad)

    return call


def _backward(function, tensors, grad):
    """The backward alone: the graph of one forward, used again and again."""
    out = function(*tensors)
    return lambda: torch.autograd.grad(out, tensors, grad, retain_graph=True)


def pair(suite, name, dtype, mine, torchs, tensors, **work) -> Case:
    """Forward of ``function(*tensors)``."""

    def under(function):
        return lambda: function(*tensors)

    return Case(
        suite,
        name,
        dtype,
        calls={"honed": under(mine), "torch": under(torchs)},
        results={"honed": under(mine), "torch": under(torchs)},
        reference=lambda: torchs(*_wide(*tensors)),
        **work,
    )


def pair_backward(suite, name, dtype, mine, torchs, tensors, grad, **work) -> Case:
    def reference():
        wide = [t.requires_grad_() for t in _wide(*tensors)]
        return _gradients(torchs, wide, grad.double())()

    return Case(
        suite,
        name,
        dtype,
        calls={"honed": _backward(mine, tensors, grad), "torch": _backward(torchs, tensors, grad)},
        results={"honed": _gradients(mine, tensors, grad), "torch": _gradients(torchs, tensors, grad)},
        reference=reference,
        **work,
    )


def _operands(batch, heads, length, size, dtype, grad=False, kv_heads=None, keys=None):
    """(B,S,H,D) in memory, as a projection gives them."""
    made = []
    for i, (h, s) in enumerate(((heads, length), (kv_heads or heads, keys or length))):
        for _ in range(1 + i):
            t = random(batch, s, h, size, dtype=dtype, seed=len(made)).transpose(1, 2)
            made.append(t.requires_grad_() if grad else t)
    return made


def _attention_grid(most):
    """Cheap ones first."""
    grid = itertools.product(*ATTENTION.values(), (False, True))
    flops = lambda b, h, d, s, causal: 4.0 * b * h * d * s * s / (2 if causal else 1)  # noqa: E731
    return sorted((flops(*each), each) for each in grid if flops(*each) <= most)


def attention(dtype: str) -> Iterator[Callable[[], Case]]:
    for flops, (b, h, d, s, causal) in _attention_grid(MOST_FLOPS):

        def case(b=b, h=h, d=d, s=s, causal=causal, flops=flops):
            return pair(
                "attention",
                f"B{b} H{h} D{d} S{s}{' causal' if causal else ''}",
                dtype,
                lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, is_causal=causal),
                lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
                _operands(b, h, s, d, DTYPES[dtype]),
                flops=flops,
            )

        yield case


def _attention_backward(suite, dtype, dropout, grid):
    for flops, (b, h, d, s, causal) in grid:

        def case(b=b, h=h, d=d, s=s, causal=causal, flops=flops):
            tensors = _operands(b, h, s, d, DTYPES[dtype], grad=True)
            grad = random(b, h, s, d, dtype=DTYPES[dtype], seed=9)
            name = f"B{b} H{h} D{d} S{s}{' causal' if causal else ''}"
            made = []
            for p in dict.fromkeys((dropout, 0.0)):  # what dropout gives is no function of the inputs alone
                mine = lambda q, k, v, p=p: ops.scaled_dot_product_attention(  # noqa: E731
                    q, k, v, dropout_p=p, is_causal=causal
                )
                torchs = lambda q, k, v, p=p: F.scaled_dot_product_attention(  # noqa: E731
                    q, k, v, dropout_p=p, is_causal=causal
                )
                made.append(pair_backward(suite, name, dtype, mine, torchs, tensors, grad, flops=2.5 * flops))
            timed, checked = made[0], made[-1]
            timed.results, timed.reference = checked.results, checked.reference
            if dropout:  # a training step: forward and backward
                timed.calls = {
                    "honed": _gradients(
                        lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, None, dropout, causal),
                        tensors,
                        grad,
                    ),
                    "torch": _gradients(
                        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, dropout, causal),
                        tensors,
                        grad,
                    ),
                }
                timed.flops = 3.5 * flops
            return timed

        yield case


def attention_backward(dtype: str) -> Iterator[Callable[[], Case]]:
    grid = [each for each in _attention_grid(MOST_FLOPS / 2.5) if each[1][3] <= 2048]
    return _attention_backward("attention-backward", dtype, 0.0, grid)


def attention_dropout(dtype: str) -> Iterator[Callable[[], Case]]:
    grid = [
        (4.0 * b * h * d * s * s, (b, h, d, s, False))
        for b, h, d, s in [(4, 12, 64, 128), (1, 12, 64, 512), (4, 8, 64, 512), (1, 8, 64, 2048)]
    ]
    return _attention_backward("attention-dropout", dtype, 0.1, grid)


def decode(dtype: str) -> Iterator[Callable[[], Case]]:
    """One query; the share is of reading keys and values once."""
    for (h, kv, d), keys in itertools.product(
        [(12, 12, 64), (9, 3, 64), (32, 4, 64), (32, 8, 128), (8, 8, 128)], (128, 1024, 4096, 32768)
    ):

        def case(h=h, kv=kv, d=d, keys=keys):
            q, k, v = _operands(1, h, 1, d, DTYPES[dtype], kv_heads=kv, keys=keys)
            k, v = k.contiguous(), v.contiguous()
            return pair(
                "decode",
                f"H{h}/{kv} D{d} S{keys}",
                dtype,
                lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, enable_gqa=h != kv),
                lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=h != kv),
                [q, k, v],
                bytes=2.0 * kv * keys * d * k.element_size(),
            )

        yield case


def masks(dtype: str) -> Iterator[Callable[[], Case]]:
    """The same attention plain and with something added; ``base`` is honed's own without."""
    b, h, s, d = 2, 12, 1024, 64
    q, k, v = _operands(b, h, s, d, DTYPES[dtype])
    bias = random(1, h, s, s, dtype=DTYPES[dtype], seed=5)
    kept = random(b, 1, s, s, dtype=torch.float32, seed=6) > -1
    padding = (torch.arange(s) < s - 64).expand(b, 1, 1, s)
    slopes = 2.0 ** -torch.arange(1, h + 1, dtype=torch.float32)
    distance = (torch.arange(s)[:, None] - torch.arange(s)).abs()
    options = {
        "bool mask": ({"attn_mask": kept}, {"attn_mask": kept}),
        "padding mask": ({"attn_mask": padding}, {"attn_mask": padding}),
        "float bias": ({"bias": bias}, {"attn_mask": bias}),
        "ALiBi": (
            {"alibi_slopes": slopes},
            {"attn_mask": (-slopes[:, None, None] * distance).to(DTYPES[dtype])},
        ),
        "softcap": ({"softcap": 30.0}, None),  # torch: composed
        "window 256": ({"window": (255, 0)}, {"attn_mask": (distance < 256).tril()}),
    }
    for name, (mine, torchs) in options.items():

        def case(name=name, mine=mine, torchs=torchs):
            plain = lambda: ops.scaled_dot_product_attention(q, k, v)  # noqa: E731
            calls = {"honed": lambda: ops.scaled_dot_product_attention(q, k, v, **mine), "honed-plain": plain}
            results = {"honed": calls["honed"]}
            if torchs is None:

                def capped(x, y, z):
                    return (30 * torch.tanh(x @ y.mT * d**-0.5 / 30)).softmax(-1) @ z

                calls["torch"] = results["torch"] = lambda: capped(q, k, v)

                def reference():
                    return capped(*_wide(q, k, v))
            else:
                calls["torch"] = results["torch"] = lambda: F.scaled_dot_product_attention(q, k, v, **torchs)

                def reference():
                    mask = torchs["attn_mask"]
                    mask = mask if mask.dtype == torch.bool else mask.double()
                    return F.scaled_dot_product_attention(*_wide(q, k, v), attn_mask=mask)

            flops = 4.0 * b * h * s * s * d
            return Case("masks", name, dtype, calls, results, reference, flops, base="honed-plain")

        yield case

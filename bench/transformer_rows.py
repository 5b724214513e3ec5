"""Cases of bench/transformer.py: norms, activations, softmax, losses, the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from transformer_cases import DTYPES, Case, pair, pair_backward, random

from honed import ops
from honed.train import AdamW

VOCABULARY, WIDTH = 50257, 768


def rows(dtype: str) -> Iterator[Callable[[], Case]]:
    """Norms, activations, softmax, rope: forward, and backward (``'``)."""
    kind = DTYPES[dtype]
    size = torch.empty(0, dtype=kind).element_size()

    def table():
        for n, c in ((1, 576), (512, 768), (2048, 3072)):
            x, w, b = (
                random(*shape, dtype=kind, seed=i, grad=True) for i, shape in enumerate([(n, c), (c,), (c,)])
            )
            u = random(n, c, dtype=kind, seed=4, grad=True)
            yield (
                f"rms_norm {n}x{c}",
                ops.rms_norm,
                F.rms_norm,
                (x, w),
                lambda f, x, w: f(x, w.shape, w, 1e-5),
            )
            yield (
                f"layer_norm {n}x{c}",
                ops.layer_norm,
                F.layer_norm,
                (x, w, b),
                lambda f, x, w, b: f(x, w.shape, w, b),
            )
            yield f"gelu {n}x{c}", ops.gelu, F.gelu, (x,), lambda f, x: f(x)
            yield f"gelu_tanh {n}x{c}", ops.gelu, F.gelu, (x,), lambda f, x: f(x, approximate="tanh")
            yield f"silu {n}x{c}", ops.silu, F.silu, (x,), lambda f, x: f(x)
            yield f"swiglu {n}x{c}", ops.swiglu, lambda g, u: F.silu(g) * u, (x, u), lambda f, x, u: f(x, u)
            yield (
                f"add_rms_norm {n}x{c}",
                lambda *a: ops.add_rms_norm(*a)[0],
                lambda x, u, s, w: F.rms_norm(x + u, s, w),
                (x, u, w),
                lambda f, x, u, w: f(x, u, w.shape, w),
            )
            yield f"softmax {n}x{c}", ops.softmax, F.softmax, (x,), lambda f, x: f(x, -1)
            yield f"log_softmax {n}x{c}", ops.log_softmax, F.log_softmax, (x,), lambda f, x: f(x, -1)
        x, w, b = (
            random(*shape, dtype=kind, seed=i, grad=True)
            for i, shape in enumerate([(8, 64, 56, 56), (64,), (64,)])
        )
        yield (
            "group_norm 8x64x56x56",
            ops.group_norm,
            F.group_norm,
            (x, w, b),
            lambda f, x, w, b: f(x, 32, w, b),
        )

    for name, mine, torchs, tensors, call in table():
        once = size * tensors[0].numel()
        same = sum(t.numel() == tensors[0].numel() for t in tensors)

        def case(name=name, mine=mine, torchs=torchs, tensors=tensors, call=call, once=once, same=same):
            plain = [t.detach() for t in tensors]
            return pair(
                "rows",
                name,
                dtype,
                lambda *a: call(mine, *a),
                lambda *a: call(torchs, *a),
                plain,
                bytes=once * (same + 1),
            )

        def backward(name=name, mine=mine, torchs=torchs, tensors=tensors, call=call, once=once, same=same):
            grad = random(*tensors[0].shape, dtype=kind, seed=7)
            return pair_backward(
                "rows",
                f"{name} '",
                dtype,
                lambda *a: call(mine, *a),
                lambda *a: call(torchs, *a),
                tensors,
                grad,
                bytes=once * (2 * same + 1),
            )

        yield case
        yield backward


def losses(dtype: str) -> Iterator[Callable[[], Case]]:
    kind = DTYPES[dtype]
    size = torch.empty(0, dtype=kind).element_size()
    ids = torch.randint(VOCABULARY, (2048,), generator=torch.Generator().manual_seed(1))

    def cross_entropy():
        logits, target = random(512, VOCABULARY, dtype=kind), ids[:512]
        return pair(
            "losses",
            f"cross_entropy 512x{VOCABULARY}",
            dtype,
            lambda x: ops.cross_entropy(x, target),
            lambda x: F.cross_entropy(x, target),
            [logits],
            bytes=size * logits.numel(),
        )

    def cross_entropy_step():
        logits, target = random(512, VOCABULARY, dtype=kind, grad=True), ids[:512]
        one = torch.ones((), dtype=kind)
        case = pair_backward(
            "losses",
            f"cross_entropy 512x{VOCABULARY}, forward and backward",
            dtype,
            lambda x: ops.cross_entropy(x, target),
            lambda x: F.cross_entropy(x, target),
            [logits],
            one,
            bytes=3 * size * logits.numel(),
        )
        case.calls = case.results
        return case

    def linear_cross_entropy():
        x = random(2048, WIDTH, dtype=kind, grad=True)
        w = (random(VOCABULARY, WIDTH, dtype=torch.float32, seed=2) * 0.02).to(kind).requires_grad_()
        case = pair_backward(
            "losses",
            f"linear_cross_entropy 2048x{WIDTH}x{VOCABULARY}, forward and backward",
            dtype,
            lambda x, w: ops.linear_cross_entropy(x, w, ids),
            lambda x, w: F.cross_entropy(F.linear(x, w), ids),
            [x, w],
            torch.ones((), dtype=kind),
            flops=6.0 * x.numel() * VOCABULARY,
        )
        case.calls = case.results
        return case

    yield cross_entropy
    yield cross_entropy_step
    yield linear_cross_entropy


def adamw(dtype: str) -> Iterator[Callable[[], Case]]:
    """A step of both optimizers over the same parameters; the share is of 4 reads and 3 writes of each."""
    shapes = {
        "one of 16M": [(4096, 4096)],
        "400 of 64": [(64,)] * 400,
        "GPT-2's layers": [(2304, 768), (768, 768), (3072, 768), (768, 3072), (768,), (3072,)] * 6,
    }
    for name, each in shapes.items():

        def case(name=name, each=each):
            def optimizer(kind, **options):
                made = [random(*s, dtype=DTYPES[dtype], seed=i, grad=True) for i, s in enumerate(each)]
                for i, p in enumerate(made):
                    p.grad = random(*p.shape, dtype=p.dtype, seed=1000 + i)
                return kind(made, lr=1e-3, weight_decay=0.1, **options), made

            made = {
                "honed": optimizer(AdamW),
                "torch": optimizer(torch.optim.AdamW, fused=True),
            }

            def stepped(name):
                fresh, parameters = (
                    optimizer(AdamW) if name == "honed" else optimizer(torch.optim.AdamW, fused=True)
                )
                fresh.step()
                return parameters

            def reference():
                wide, parameters = optimizer(torch.optim.AdamW)
                for p in parameters:
                    p.data, grad = p.data.double(), p.grad
                    p.grad = None
                    p.grad = grad.double()
                wide.step()
                return parameters

            elements = sum(p.numel() for p in made["honed"][1])
            return Case(
                "adamw",
                name,
                dtype,
                {n: o.step for n, (o, _) in made.items()},
                {n: lambda n=n: stepped(n) for n in made},
                reference,
                bytes=7.0 * elements * made["honed"][1][0].element_size(),
            )

        yield case

"""Times convolutions beside torch's: the distinct layers of the networks in image_nets.py.

    python bench/conv.py                                           # forward, batch 1 and 16, f32
    python bench/conv.py --suite backward --nets resnet50,mobilenetv2
    python bench/conv.py --kind depthwise,transposed --batch 1 --quick --no-csv
    python bench/conv.py --level avx2                              # honed, torch and oneDNN held to AVX2
    python bench/conv.py --suite models                            # bench/image_models.py

Providers: ``torch`` (torch.nn.functional), ``honed`` (honed.ops) and ``honed-packed`` (honed.nn, the weight
prepared once as in inference), each with contiguous and with channels_last tensors; ``--frozen`` adds torch
with weights in oneDNN's own layout, what freezing under torch.compile gives. Ratios are to torch in its
better layout, without that. ``backward`` is the gradients of input, weight and bias alone. Results are
checked against float64 before they are timed, as much of them as takes CHECK_FLOPS: the last images of a
batch, and of the weight's gradient the first channels.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import conv_report
import harness
import torch
import torch.nn.functional as F
from conv_shapes import KINDS, LAYERS_OF, Layer, layers
from gemm import AVX2
from transformer_cases import DTYPES, random

import honed
from honed import ops
from honed.testing import allowed_error

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CHECK_FLOPS = 4e9
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PATIENCE_S = 2.0  # for all rounds of a layer: fewer of long ones
SETTLED_S = 0.1  # beyond, what a call finds in the caches matters little


@dataclass(frozen=True)
class Problem:
    layer: Layer
    batch: int
    dtype: torch.dtype
    layout: str

    def _made(self, shape: tuple[int, ...], seed: int, scale: float = 1.0) -> torch.Tensor:
        made = random(*shape, dtype=torch.float32, seed=seed).mul_(scale).to(self.dtype)
        return made.to(memory_format=LAYOUTS[self.layout]) if len(shape) == 4 else made

    @cached_property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = self.layer.weight_shape
        w = self._made(shape, 1, math.prod(shape[1:]) ** -0.5)
        x = self._made((self.batch, self.layer.inputs, *self.layer.size), 0)
        return x, w, random(self.layer.outputs, dtype=self.dtype, seed=2)

    @cached_property
    def grad(self) -> torch.Tensor:
        return self._made((self.batch, self.layer.outputs, *self.layer.output_size), 3)


# ---- providers: a Problem to a function of x, w, b


def torchs(p: Problem) -> Callable:
    function, options = getattr(F, p.layer.function), p.layer.options
    return lambda x, w, b: function(x, w, b, **options)


def frozen(p: Problem) -> Callable:
    """oneDNN with its own layout of the weight, which it chose for this input."""
    layer = p.layer
    x, w, bias = p.tensors
    options = (layer.padding, layer.stride, layer.dilation, layer.groups)
    packed = torch.ops.mkldnn._reorder_convolution_weight(w, *options, list(x.shape))
    run = torch.ops.mkldnn._convolution_pointwise
    return lambda x, w, b: run(x, packed, bias, *options, "none", [], "")


def plain(p: Problem) -> Callable:
    function, options = getattr(ops, p.layer.function), p.layer.options
    return lambda x, w, b: function(x, w, b, **options)


def packed(p: Problem) -> Callable:
    layer = p.layer
    make = getattr(honed.nn, layer.module)
    module = make(layer.inputs, layer.outputs, layer.kernel, dtype=p.dtype, **layer.options).eval()
    module.weight, module.bias = (torch.nn.Parameter(t, requires_grad=False) for t in p.tensors[1:])
    return lambda x, w, b: module(x)


FORWARD = {"torch": torchs, "honed-packed": packed, "honed": plain}
BACKWARD = {"torch": torchs, "honed": plain}


def forward_call(function: Callable, p: Problem) -> Callable:
    return lambda: (function(*p.tensors),)


def backward_call(function: Callable, p: Problem) -> Callable:
    """The graph of one forward, used again and again."""
    tensors = [t.detach().requires_grad_() for t in p.tensors]
    out = function(*tensors)
    return lambda: torch.autograd.grad(out, tensors, p.grad, retain_graph=True)


# ---- what is right


class Reference:
    """Parts of the results in float64; ``of(results)`` cuts the same parts out of a provider's."""

    def __init__(self, p: Problem, backward: bool):
        layer, (x, w, b) = p.layer, p.tensors
        self.backward, self.transposed = backward, layer.transposed
        work = layer.flops(p.batch)
        self.images = max(1, min(p.batch, int(CHECK_FLOPS / work * p.batch)))
        share = 1.0 if layer.groups > 1 else min(1.0, CHECK_FLOPS / work) ** 0.5
        self.outputs, self.inputs = (math.ceil(n * share) for n in (layer.outputs, layer.inputs))
        function = torchs(p)
        wide = [t.detach().double().contiguous() for t in (x[-self.images :], w, b)]
        if not backward:
            self.parts = [function(*wide)]
            return
        wide[0].requires_grad_()
        self.parts = list(torch.autograd.grad(function(*wide), wide[0], p.grad[-self.images :].double()))
        cut = [t.detach().double().requires_grad_() for t in (self._channels(w), b[: self.outputs])]
        sums = [torch.zeros_like(t) for t in cut]
        for i in range(p.batch):  # torch's float64 convolution unfolds all the images it gets
            out = function(x[i : i + 1, : self.inputs].double(), *cut)
            grad = p.grad[i : i + 1, : self.outputs].double()
            for total, found in zip(sums, torch.autograd.grad(out, cut, grad), strict=True):
                total += found
        self.parts += sums

    def _channels(self, w: torch.Tensor) -> torch.Tensor:
        if self.transposed:
            return w[: self.inputs, : self.outputs]
        return w[: self.outputs, : self.inputs]

    def of(self, results: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        first = results[0][-self.images :].detach().clone()
        if not self.backward:
            return [first]
        return [first, self._channels(results[1]), results[2][: self.outputs]]


# ---- timing


@dataclass(frozen=True)
class Options:
    suite: str
    dtype: str
    threads: int
    seconds: float
    rounds: int
    frozen: bool
    clock: str


def ready(o: Options, layer: Layer, batch: int) -> tuple[dict, dict, float]:
    """The calls by provider and layout; relative errors; the seconds of a first round."""
    backward = o.suite == "backward"
    providers = dict(BACKWARD if backward else FORWARD)
    if o.frozen and not backward and layer.function == "conv2d":
        providers["torch-frozen"] = frozen
    make = backward_call if backward else forward_call
    reference, limits = None, []
    calls, errors, round_s = {}, {}, 0.0
    for layout in LAYOUTS if len(layer.size) == 2 else ("contiguous",):
        problem = Problem(layer, batch, DTYPES[o.dtype], layout)
        reference = reference or Reference(problem, backward)
        for name, provider in providers.items():
            call = make(provider(problem), problem)
            start = CLOCKS[o.clock]()
            parts = reference.of(call())
            round_s += CLOCKS[o.clock]() - start
            if name == "torch":
                compared = zip(reference.parts, parts, strict=True)
                limits = [allowed_error(right, found, problem.dtype) for right, found in compared]
            wrong = [
                (found.double() - right).abs().max().item()
                for found, right in zip(parts, reference.parts, strict=True)
            ]
            errors[name, layout] = max(
                w / right.abs().max().item() for w, right in zip(wrong, reference.parts, strict=True)
            )
            if name.startswith("honed") and not all(w <= most for w, most in zip(wrong, limits, strict=True)):
                print(f"{layer.name} x{batch} {name} {layout}: not timed, errors {wrong}, allowed {limits}")
                continue
            calls[name, layout] = call
    return calls, errors, round_s


def run(o: Options, layer: Layer, batch: int) -> tuple[list[dict], bool]:
    backward = o.suite == "backward"
    with torch.set_grad_enabled(backward):
        calls, errors, round_s = ready(o, layer, batch)
        rounds = max(2, min(o.rounds, int(PATIENCE_S / round_s)))
        tries = 2 if rounds == o.rounds and o.clock == "wall" else 1
        options = {"clock": CLOCKS[o.clock], "settled": round_s < SETTLED_S}
        times, others = harness.quietest(calls, o.seconds, rounds, tries, **options)
    work = layer.flops(batch) * (2 if backward else 1)
    theirs = [key for key in times if key[0] == "torch"]
    peer = min(theirs, key=lambda key: times[key].p50)
    rows = []
    for (name, layout), taken in times.items():
        versus = f"{harness.ratio(times[peer], taken):.4f}" if name.startswith("honed") else ""
        rows.append(
            {
                "suite": o.suite,
                "net": layer.net,
                "layer": layer.name,
                "kind": layer.kind,
                "batch": batch,
                "dtype": o.dtype,
                "threads": o.threads,
                "provider": name,
                "layout": layout,
                "clock": o.clock,
                "p20_us": round(taken.p20 * 1e6, 2),
                "p50_us": round(taken.p50 * 1e6, 2),
                "p80_us": round(taken.p80 * 1e6, 2),
                "gflops": round(work / taken.p50 / 1e9, 2),
                "error": f"{errors[name, layout]:.1e}",
                "peer_layout": peer[1] if versus else "",
                "ratio": versus,
                "others": round(others, 3),
                "level": honed.info().level,
                "sha": harness.git_sha(),
                "date": harness.today(),
            }
        )
    print(conv_report.line(rows), flush=True)
    return rows, len(times) == len(errors)


def again_at(level: str) -> int:
    """The libraries read these variables when they are loaded: a process of its own."""
    variables = AVX2 if level == "avx2" else {"HONED_ISA": level}
    return subprocess.run(
        [sys.executable, *sys.argv], env={**os.environ, **variables}, check=False
    ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="forward", help="comma-separated, of forward, backward and models")
    parser.add_argument("--nets", default=",".join(LAYERS_OF), help="comma-separated")
    parser.add_argument("--kind", default=",".join(KINDS), help="comma-separated")
    parser.add_argument("--only", default="", help="layers whose names hold this")
    parser.add_argument("--batch", default="1,16", help="comma-separated")
    parser.add_argument("--threads", default=str(min(2, honed.info().cpus)), help="comma-separated")
    parser.add_argument("--dtype", default="f32", help="comma-separated, of f32, bf16")
    parser.add_argument("--level", default="", help="CPU level of honed; avx2 holds torch to AVX2 too")
    parser.add_argument("--seconds", type=float, default=0.3, help="budget of a layer, all providers")
    parser.add_argument(
        "--cpu-time", action="store_true", help="of one thread, where other programs take the cores"
    )
    parser.add_argument("--quick", action="store_true", help="short budgets: a first look")
    parser.add_argument("--frozen", action="store_true", help="torch with weights in oneDNN's layout too")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    clock = "cpu" if arguments.cpu_time else "wall"
    if arguments.cpu_time and arguments.threads != "1":
        parser.error(f"--cpu-time --threads {arguments.threads}: expected --threads 1")
    if arguments.level and os.environ.get("HONED_ISA") != arguments.level:
        return again_at(arguments.level)
    path = harness.RESULTS / f"{harness.machine_name()}-conv.csv"
    suites = arguments.suite.split(",")
    if "models" in suites:
        import image_models

        suites.remove("models")
        image_models.main(["--no-csv"] if arguments.no_csv else [])
    nets, kinds = tuple(arguments.nets.split(",")), arguments.kind.split(",")
    unknown = set(nets) - set(LAYERS_OF) | set(kinds) - set(KINDS) | set(suites) - {"forward", "backward"}
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}")
    chosen = [each for each in layers(nets) if each.kind in kinds and arguments.only in each.name]
    chosen.sort(key=lambda each: each.flops(1))
    rows, all_right = [], True
    for threads in map(int, arguments.threads.split(",")):
        torch.set_num_threads(threads)
        if suites:
            print(harness.machine_card(threads))
            print("time and GF/s, contiguous | channels_last; x: ratio to torch's better one")
        for suite in suites:
            for dtype in arguments.dtype.split(","):
                seconds = arguments.seconds / (4 if arguments.quick else 1)
                rounds = 5 if arguments.quick else 9
                options = Options(suite, dtype, threads, seconds, rounds, arguments.frozen, clock)
                for batch in map(int, arguments.batch.split(",")):
                    for layer in chosen:
                        taken, right = run(options, layer, batch)
                        rows += taken
                        all_right &= right
                        if not arguments.no_csv:
                            harness.append_rows(path, taken)
                        gc.collect()
    if rows:
        print(conv_report.summary(rows))
    return int(not all_right)


if __name__ == "__main__":
    sys.exit(main())

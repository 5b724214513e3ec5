"""Times matrix products: honed beside torch and ONNX Runtime, the shapes of gemm_shapes.py.

    python bench/gemm.py --suite f32                                 # every shape, 2 threads and 1
    python bench/gemm.py --suite bf16,int8 --threads 2 --family gpt2
    python bench/gemm.py --suite f32 --shape 1024x1024x1024 --no-csv
    python bench/gemm.py --suite avx2 --resume                       # leaves out what this commit has already

Suites: f32, f64, bf16, f16, backward, backward-bf16 (both gradients of a linear layer), int8, int8-row and
int4-row (one row, weights larger than the L2 cache), avx2 (f32, honed and torch held to AVX2) and tiny (the
cost of a small call). Results are checked against float64 before they are timed. Shares are of what the
machine was measured to do just before and after the shape.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import gemm_providers as providers
import gemm_report
import gemm_shapes as shapes
import harness
import torch

import honed

AVX2 = {
    "HONED_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
BANDWIDTH_ROWS = 16  # up to so many rows, reading the weight may be what takes the time
SLOWER = 50  # a provider that takes so many times as long as the fastest is not timed
PATIENCE_S = 2.0  # nor called at all where it would take that much and longer than this
TRIES = 3  # of a shape, while other programs run


@dataclass(frozen=True)
class Suite:
    providers: dict
    dtype: torch.dtype = torch.float32
    limits: tuple[str, ...] = ("f32 FMA",)  # share of the highest rate of these
    integers: str = ""  # kind of honed's weights
    bytes_a_weight: float = 4
    backward: bool = False
    own_pools: bool = False  # some providers bring threads of their own


SUITES = {
    "f32": Suite(providers.FLOAT32),
    "f64": Suite(providers.FLOAT64, torch.float64, ("f64 FMA",), bytes_a_weight=8),
    "bf16": Suite(providers.FLOAT16, torch.bfloat16, ("f32 FMA", "bf16 dot"), bytes_a_weight=2),
    "f16": Suite(providers.FLOAT16, torch.float16, bytes_a_weight=2),
    "backward": Suite(providers.BACKWARD, backward=True),
    "backward-bf16": Suite(
        providers.BACKWARD, torch.bfloat16, ("f32 FMA", "bf16 dot"), bytes_a_weight=2, backward=True
    ),
    "int8": Suite(
        providers.INT8,
        limits=("f32 FMA", "int8 dot"),
        integers="int8",
        bytes_a_weight=1,
        own_pools=True,
    ),
    "avx2": Suite(providers.FLOAT32),
    "tiny": Suite(providers.FLOAT32),
}
SUITES["int8-row"] = SUITES["int8"]
SUITES["int4-row"] = Suite(
    providers.INT4,
    limits=("f32 FMA", "int8 dot"),
    integers="int4",
    bytes_a_weight=0.5 + 4 / providers.GROUP,
    own_pools=True,
)


def l2_bytes() -> int:
    """Of all cores."""
    text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    each = int(text.read_text().strip().rstrip("K")) * 1024 if text.exists() else 1 << 20
    return each * honed.info().cpus


def shapes_of(name: str) -> list[shapes.Shape]:
    """Cheap ones first: what a provider needed there tells what it would need next."""
    suite = SUITES[name]
    if name == "tiny":
        return shapes.tiny()
    if name.endswith("-row"):
        found = [s for s in shapes.layers((1,)) if s.n * s.k * suite.bytes_a_weight > l2_bytes()]
    elif name == "int8":
        found = shapes.layers()
    else:
        found = [s for s in shapes.everything() if s.m >= 16 or not suite.backward]
    return sorted(found, key=lambda s: s.flops)


class Limits:
    """What the machine does next to a shape: the better of before and after."""

    def __init__(self, suite: Suite, shape: shapes.Shape, threads: int):
        self.kinds, self.threads = suite.limits, threads
        bytes_read = shape.n * shape.k * suite.bytes_a_weight
        self.megabytes = min(bytes_read, 256e6) / 1e6 if shape.m <= BANDWIDTH_ROWS else 0
        self.bytes_read = bytes_read
        self.rate = self.bandwidth = 0.0

    def measure(self) -> None:
        time.sleep(0.005)  # idle threads of the providers go to sleep
        for kind in self.kinds:
            self.rate = max(self.rate, harness.peak_rate(kind, self.threads, 5))
        if self.megabytes:
            found = harness.read_bandwidth(self.megabytes, self.threads, 5)
            self.bandwidth = max(self.bandwidth, found)


class Runner:
    """One suite at one thread count."""

    def __init__(self, name: str, threads: int, seconds: float):
        self.name, self.suite, self.threads, self.seconds = name, SUITES[name], threads, seconds
        self.seconds_a_flop: dict[str, float] = {}  # of the shape before
        self.missing: set[str] = set()
        self.all_right = True

    def say(self, shape: shapes.Shape, provider: str, text: str) -> None:
        print(f"{self.name:9} {shape.name:20} {provider}: {text}", flush=True)

    def ready(self, problem, shape, work) -> tuple[dict, dict]:
        """The calls worth timing, and the relative error of each."""
        check = providers.checker(problem, self.suite.integers)
        calls, errors, took = {}, {}, {}
        for name, provider in self.suite.providers.items():
            if name in self.missing:
                continue
            expected = self.seconds_a_flop.get(name, 0) * work
            if expected > PATIENCE_S and took and expected > SLOWER * min(took.values()):
                self.say(shape, name, f"left out, would take {expected:.0f} s")
                continue
            try:
                call = provider(problem)
            except providers.Unavailable as reason:
                self.say(shape, name, f"left out, {reason}")
                if not isinstance(reason, providers.Unfit):
                    self.missing.add(name)
                continue
            start = time.perf_counter()
            results = call()
            took[name] = time.perf_counter() - start
            if took[name] < 0.01:  # the first call is no measure
                start = time.perf_counter()
                results = call()
                took[name] = time.perf_counter() - start
            self.seconds_a_flop[name] = took[name] / work
            errors[name], complaint = check(results)
            if complaint and name.startswith("honed"):
                self.all_right = False
                self.say(shape, name, f"not timed: {complaint}")
                continue
            calls[name] = call
        slow = [n for n in calls if took[n] > SLOWER * min(took.values()) and took[n] > self.seconds]
        for name in slow:
            self.say(shape, name, f"left out, {took[name] / min(took.values()):.0f} times slower")
            del calls[name]
        return calls, errors

    def time(self, calls: dict, limits: Limits) -> tuple[dict[str, harness.Times], float]:
        """The times of the quietest of a few tries, and the share of the cores that others took meanwhile."""
        best, least = {}, 2.0
        for _ in range(TRIES):
            limits.measure()
            with harness.OtherPrograms() as others:
                if self.suite.own_pools:
                    times = harness.in_blocks(calls, self.seconds)
                else:
                    times = harness.interleaved(calls, self.seconds, min_rounds=3)
            limits.measure()
            if others.share < least:
                best, least = times, others.share
            if least <= gemm_report.BUSY:
                break
        return best, least

    def run(self, shape: shapes.Shape) -> list[dict]:
        suite = self.suite
        problem = providers.Problem.of(shape, suite.dtype, self.threads, suite.backward)
        work = shape.flops * (2 if suite.backward else 1)
        with torch.inference_mode():
            limits = Limits(suite, shape, self.threads)
            calls, errors = self.ready(problem, shape, work)
            times, others = self.time(calls, limits) if calls else ({}, 0)
        peers = [name for name in times if not name.startswith("honed")]
        peer = min(peers, key=lambda name: times[name].p50, default="")
        rows = []
        for name, taken in times.items():
            ours = name.startswith("honed") and peer
            bandwidth = limits.bytes_read / taken.p50 / limits.bandwidth if limits.bandwidth else ""
            rows.append(
                {
                    "suite": self.name,
                    "family": shape.family,
                    "shape": shape.name,
                    "m": shape.m,
                    "n": shape.n,
                    "k": shape.k,
                    "dtype": str(suite.dtype).removeprefix("torch."),
                    "threads": self.threads,
                    "provider": name,
                    "p20_us": round(taken.p20 * 1e6, 3),
                    "p50_us": round(taken.p50 * 1e6, 3),
                    "p80_us": round(taken.p80 * 1e6, 3),
                    "gflops": round(work / taken.p50 / 1e9, 2),
                    "peak": round(limits.rate / 1e9, 1),
                    "share_of_peak": round(work / taken.p50 / limits.rate, 4),
                    "share_of_bandwidth": round(bandwidth, 4) if bandwidth else "",
                    "others": round(others, 3),
                    "relative_error": f"{errors[name]:.2e}",
                    "peer": peer if ours else "",
                    "ratio": round(harness.ratio(times[peer], taken), 4) if ours else "",
                    "level": honed.info().level,
                    "sha": harness.git_sha(),
                    "date": harness.today(),
                }
            )
        print(gemm_report.line(rows), flush=True)
        return rows


def run_suite(name: str, chosen: list[shapes.Shape], arguments, path: Path) -> tuple[list[dict], bool]:
    rows, all_right = [], True
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        print(harness.machine_card(threads, ("torch", "numpy", "onnxruntime")))
        done = finished(path, name, threads) if arguments.resume else set()
        runner = Runner(name, threads, arguments.seconds)
        for shape in chosen:
            if shape.name in done:
                continue
            taken = runner.run(shape)
            rows += taken
            if not arguments.no_csv:
                harness.append_rows(path, taken)
            if shape.flops > 1e9:
                gc.collect()
        all_right &= runner.all_right
    return rows, all_right


def finished(path: Path, suite: str, threads: int) -> set[str]:
    """Shapes that the file has of this commit and level, timed while nothing else ran."""
    if not path.exists():
        return set()
    wanted = (suite, str(threads), honed.info().level, harness.git_sha())
    with path.open(newline="") as file:
        return {
            row["shape"]
            for row in csv.DictReader(file)
            if (row["suite"], row["threads"], row["level"], row["sha"]) == wanted
            and float(row["others"]) <= gemm_report.BUSY
        }


def again_with_avx2(arguments) -> int:
    """The libraries read these variables when they are loaded: a process of its own."""
    command = [sys.executable, __file__, "--suite", "avx2"]
    command += ["--threads", ",".join(map(str, arguments.threads)), "--seconds", str(arguments.seconds)]
    for option in ("family", "shape"):
        if getattr(arguments, option):
            command += [f"--{option}", getattr(arguments, option)]
    command += [flag for flag in ("--resume", "--no-csv") if getattr(arguments, flag[2:].replace("-", "_"))]
    return subprocess.run(command, env={**os.environ, **AVX2}, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    counts = sorted({1, min(2, honed.info().cpus)}, reverse=True)
    parser.add_argument("--suite", default="f32", help=f"comma-separated, of {', '.join(SUITES)}")
    parser.add_argument("--threads", default=",".join(map(str, counts)), help="comma-separated counts")
    parser.add_argument("--family", default="", help="comma-separated: square, gpt2, ..., resnet50, odd, ...")
    parser.add_argument("--shape", default="", help="comma-separated names of shapes")
    parser.add_argument("--seconds", type=float, default=0.3, help="budget of a shape, all providers")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what the file has of this commit, undisturbed"
    )
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    arguments.threads = [int(count) for count in arguments.threads.split(",")]
    names = arguments.suite.split(",")
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        parser.error(f"--suite {', '.join(unknown)}: expected some of {', '.join(SUITES)}")
    path = harness.RESULTS / f"{harness.machine_name()}-gemm.csv"
    rows, failed = [], False
    for name in names:
        if name == "avx2" and any(os.environ.get(key) != value for key, value in AVX2.items()):
            failed |= again_with_avx2(arguments) != 0
            continue
        chosen = [
            shape
            for shape in shapes_of(name)
            if (not arguments.family or shape.family in arguments.family.split(","))
            and (not arguments.shape or shape.name in arguments.shape.split(","))
        ]
        if not chosen:
            parser.error(f"suite {name} has no shape of family '{arguments.family}' name '{arguments.shape}'")
        taken, all_right = run_suite(name, chosen, arguments, path)
        rows += taken
        failed |= not all_right
    if rows:
        print(gemm_report.summary(rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

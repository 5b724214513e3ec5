"""Timing: warm-up, candidates in turn, quantiles; and the machine that the figures belong to."""

from __future__ import annotations

import csv
import ctypes
import datetime
import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import honed

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
# A clock reading costs about 50 ns: one sample of at least this long hides it.
SAMPLE_S = 200e-6


@dataclass(frozen=True)
class Times:
    """Seconds a call: the 20th, 50th and 80th percentile, and every sample in the order taken."""

    p20: float
    p50: float
    p80: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples) -> Times:
        cuts = statistics.quantiles(samples, n=10) if len(samples) > 1 else [samples[0]] * 9
        return cls(cuts[1], statistics.median(samples), cuts[7], tuple(samples))


def ratio(slow: Times, fast: Times) -> float:
    """Median over the rounds of ``slow / fast``: what both suffered in one round cancels."""
    return statistics.median(a / b for a, b in zip(slow.samples, fast.samples, strict=True))


def interleaved(
    candidates: Mapping[str, Callable], budget_s: float = 2.0, min_rounds: int = 9
) -> dict[str, Times]:
    """Times every candidate in every round, the order turned by one each round."""
    names = list(candidates)
    repeats = {}
    for name, call in candidates.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(SAMPLE_S / max(time.perf_counter() - start, 1e-9)))
    samples = {name: [] for name in names}
    end = time.perf_counter() + budget_s
    rounds = 0
    while rounds < min_rounds or time.perf_counter() < end:
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
            call, count = candidates[name], repeats[name]
            start = time.perf_counter()
            for _ in range(count):
                call()
            samples[name].append((time.perf_counter() - start) / count)
        rounds += 1
    return {name: Times.of(taken) for name, taken in samples.items()}


@cache
def _peak_library() -> ctypes.CDLL:
    """bench/peak.cpp, compiled for this machine."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("bench: no C++ compiler found for bench/peak.cpp, expected c++, g++ or clang++")
    source, target = HERE / "peak.cpp", HERE.parent / "build" / "peak.so"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(exist_ok=True)
        flags = ["-std=c++20", "-O3", "-march=native", "-mprefer-vector-width=512", "-ffp-contract=fast"]
        # Without -ffast-math the sums keep their eight chains, which is what is wanted.
        command = [*compiler.split(), *flags, "-shared", "-fPIC", "-pthread", str(source), "-o", str(target)]
        subprocess.run(command, check=True)
    library = ctypes.CDLL(str(target))
    library.read_bandwidth.restype = library.fma_rate.restype = ctypes.c_double
    library.read_bandwidth.argtypes = [ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
    library.fma_rate.argtypes = [ctypes.c_int, ctypes.c_int]
    return library


def read_bandwidth(megabytes: int, threads: int) -> float:
    """Bytes a second that ``threads`` threads read from a buffer of that size, the best of ten passes."""
    return _peak_library().read_bandwidth(megabytes * 1_000_000, threads, 10)


def fma_rate(threads: int) -> float:
    """f32 operations a second, two a multiply-add."""
    return _peak_library().fma_rate(threads, 10)


@cache
def cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found.group(1).strip() if found else platform.processor() or "unknown"


def machine_name() -> str:
    """Names the results file: CPU model and cores."""
    return re.sub(r"[^a-z0-9]+", "-", f"{cpu_model()} {honed.info().cpus} cores".lower()).strip("-")


def versions(*packages: str) -> str:
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def machine_card(threads: int, packages=("torch", "numpy")) -> str:
    """The lines that every report of figures carries."""
    info = honed.info()
    sizes = (8, 64, 256)
    reads = ", ".join(f"{read_bandwidth(size, threads) / 1e9:.1f} GB/s over {size} MB" for size in sizes)
    return "\n".join(
        [
            f"machine    {cpu_model()}, {info.cpus} cores, {threads} threads used, level {info.level}",
            f"software   honed {info.version} ({git_sha()}), {versions(*packages)}, "
            f"Python {platform.python_version()}",
            f"reading    {reads}",
            f"f32 FMA    {fma_rate(threads) / 1e9:.0f} GFLOP/s",
        ]
    )


@cache
def git_sha() -> str:
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")


def append_rows(path: Path, rows: list[dict]) -> None:
    """Adds rows to a CSV file; a file with other columns is refused, not mixed."""
    if not rows:
        return
    columns = list(rows[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    if not is_new:
        with path.open(newline="") as file:
            found = next(csv.reader(file))
        if found != columns:
            raise ValueError(f"bench: {path} has the columns {found}, expected {columns}")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if is_new:
            writer.writeheader()
        writer.writerows(rows)

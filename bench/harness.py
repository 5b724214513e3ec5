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

from gemm_report import BUSY

import honed

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
# A clock reading costs about 50 ns: one sample of at least this long hides it.
SAMPLE_S = 200e-6
# Instructions whose rate bench/peak.cpp measures.
RATES = {
    "f32 FMA": "fma_rate",
    "f64 FMA": "fma64_rate",
    "int8 dot": "int8_dot_rate",
    "bf16 dot": "bf16_dot_rate",
}


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
    candidates: Mapping[str, Callable],
    budget_s: float = 2.0,
    min_rounds: int = 9,
    clock: Callable[[], float] = time.perf_counter,
    settled: bool = False,
) -> dict[str, Times]:
    """Times every candidate in every round, the order turned by one each round.

    ``settled``: a call before each sample does not count, so that all find the caches as they left them.
    Without, a candidate gains from the one before it where they share tensors.
    """
    names = list(candidates)
    repeats = {}
    for name, call in candidates.items():
        call()
        start = clock()
        call()
        repeats[name] = max(1, int(SAMPLE_S / max(clock() - start, 1e-9)))
    samples = {name: [] for name in names}
    end = clock() + budget_s
    rounds = 0
    while rounds < min_rounds or clock() < end:
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
            call, count = candidates[name], repeats[name]
            if settled:
                call()
            start = clock()
            for _ in range(count):
                call()
            samples[name].append((clock() - start) / count)
        rounds += 1
    return {name: Times.of(taken) for name, taken in samples.items()}


def in_blocks(
    candidates: Mapping[str, Callable], budget_s: float = 2.0, rounds: int = 3, pause_s: float = 0.03
) -> dict[str, Times]:
    """As interleaved(), for candidates with thread pools of their own.

    An idle pool goes on spinning for some milliseconds and takes the cores from the next candidate. Each
    turn therefore starts with a pause and a call that does not count, and lasts for many samples; a
    sample in ``Times`` is the median of one turn.
    """
    turns = {name: lambda s, call=call: turn(call, s, pause_s) for name, call in candidates.items()}
    return in_turns(turns, budget_s, rounds)


def turn(call: Callable, seconds: float, pause_s: float = 0.03) -> list[float]:
    """Samples of one turn of in_blocks()."""
    time.sleep(pause_s)
    call()
    start = time.perf_counter()
    call()
    count = max(1, int(SAMPLE_S / max(time.perf_counter() - start, 1e-9)))
    end, taken = time.perf_counter() + seconds, []
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(count):
            call()
        taken.append((time.perf_counter() - start) / count)
    return taken


def in_turns(
    turns: Mapping[str, Callable[[float], list[float]]], budget_s: float, rounds: int = 3
) -> dict[str, Times]:
    """As in_blocks(), of functions that take the seconds of a turn and give its samples."""
    names = list(turns)
    turn_s = budget_s / (rounds * len(names))
    samples = {name: [] for name in names}
    quantiles = {name: [] for name in names}
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            taken = turns[name](turn_s)
            samples[name].append(statistics.median(taken))
            quantiles[name] += taken
    times = {name: Times.of(quantiles[name]) for name in names}
    return {name: Times(t.p20, t.p50, t.p80, tuple(samples[name])) for name, t in times.items()}


class OtherPrograms:
    """``with OtherPrograms() as others: ...`` then ``others.share``: the part of the cores they took."""

    share = 0.0

    def _now(self) -> tuple[float, float, float]:
        own = sum(os.times()[:2])
        stat = Path("/proc/stat")
        if not stat.exists():
            return time.perf_counter(), own, own
        user, nice, system, _, _, irq, soft, steal = map(int, stat.read_text().split()[1:9])
        ticks = user + nice + system + irq + soft + steal
        return time.perf_counter(), own, ticks / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> OtherPrograms:
        self._before = self._now()
        return self

    def __exit__(self, *_) -> None:
        wall, own, busy = (b - a for a, b in zip(self._before, self._now(), strict=True))
        self.share = max(0.0, (busy - own) / (wall * (os.cpu_count() or 1)))


def quietest(
    calls: Mapping[str, Callable],
    seconds: float,
    min_rounds: int = 5,
    tries: int = 2,
    **options,
) -> tuple[dict[str, Times], float]:
    """interleaved(**options) again while other programs run; and what they took in the quietest try."""
    best, least = {}, 2.0
    for _ in range(tries):
        time.sleep(0.003)
        with OtherPrograms() as others:
            times = interleaved(calls, seconds, min_rounds, **options)
        if others.share < least:
            best, least = times, others.share
        if least <= BUSY:
            break
    return best, least


@cache
def _peak_library(level: str) -> ctypes.CDLL:
    """bench/peak.cpp, compiled for this machine and no more than the instructions of honed's level."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("bench: no C++ compiler found for bench/peak.cpp, expected c++, g++ or clang++")
    source, target = HERE / "peak.cpp", HERE.parent / "build" / f"peak-{level}.so"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(exist_ok=True)
        # Without -ffast-math the sums keep their chains, which is what is wanted.
        flags = ["-std=c++20", "-O3", "-march=native", "-ffp-contract=fast"]
        flags += ["-mno-avx512f"] if level == "avx2" else []
        command = [*compiler.split(), *flags, "-shared", "-fPIC", "-pthread", str(source), "-o", str(target)]
        subprocess.run(command, check=True)
    library = ctypes.CDLL(str(target))
    library.read_bandwidth.argtypes = [ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
    library.read_bandwidth.restype = ctypes.c_double
    for name in RATES.values():
        getattr(library, name).argtypes = [ctypes.c_int, ctypes.c_int]
        getattr(library, name).restype = ctypes.c_double
    return library


def read_bandwidth(megabytes: float, threads: int, repeats: int = 10) -> float:
    """Bytes a second that ``threads`` threads read from a buffer of that size, the best of the passes."""
    library = _peak_library(honed.info().level)
    return library.read_bandwidth(int(megabytes * 1e6), threads, repeats)


def peak_rate(kind: str, threads: int, repeats: int = 10) -> float:
    """Operations a second, two a multiply-add, of a kind in ``RATES``; 0: the CPU lacks the instruction."""
    return getattr(_peak_library(honed.info().level), RATES[kind])(threads, repeats)


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
    rates = ", ".join(f"{kind} {peak_rate(kind, threads) / 1e9:.0f}" for kind in RATES)
    reads = ", ".join(f"{read_bandwidth(size, threads) / 1e9:.1f} GB/s over {size} MB" for size in sizes)
    return "\n".join(
        [
            f"machine    {cpu_model()}, {info.cpus} cores, {threads} threads used, level {info.level}",
            f"software   honed {info.version} ({git_sha()}), {versions(*packages)}, "
            f"Python {platform.python_version()}",
            f"reading    {reads}",
            f"operations {rates} (G/s)",
        ]
    )


@cache
def git_sha() -> str:
    """The commit, with "-dirty" where anything but results differs from it."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        command = ["git", "-C", str(HERE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    sha = git("rev-parse", "--short", "HEAD").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", ":/", ":(exclude,top)bench/results").returncode
    return f"{sha}-dirty" if sha and changed else sha or "unknown"


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

"""Summary of bench/results/*-conv.csv, the newest row of each layer.

python bench/conv_report.py
"""

from __future__ import annotations

import csv
import math
import statistics
import sys
from pathlib import Path

from gemm_report import BUSY, LEAST, RESULTS, grouped

KINDS = ("1x1", "3x3", "3x3 strided", "depthwise", "first", "5x5/7x7", "transposed", "conv1d", "other")
WORST = 6


def is_disturbed(row: dict) -> bool:
    return row["clock"] == "wall" and float(row["others"]) > BUSY


def line(rows: list[dict]) -> str:
    first, parts = rows[0], []
    for (name,), part in grouped(rows, ("provider",)).items():
        shown = []
        for row in part:
            versus = f" x{float(row['ratio']):.2f}" if row["ratio"] else ""
            shown.append(f"{float(row['p50_us']):.0f} us {float(row['gflops']):.0f}{versus}")
        parts.append(f"{name} {' | '.join(shown)}")
    noise = f"  (others took {100 * first['others']:.0f} % of the cores)" if is_disturbed(first) else ""
    label = f"{first['kind']:11} {first['layer']:26} x{first['batch']:<3}"
    return f"{label} {'; '.join(parts)}{noise}"


def better_layouts(rows: list[dict]) -> list[dict]:
    """Of each layer and provider the row of its faster layout."""
    key = ("suite", "dtype", "threads", "level", "layer", "batch", "provider", "clock")
    return [min(part, key=lambda row: float(row["p50_us"])) for part in grouped(rows, key).values()]


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def _verdict(label: str, part: list[dict]) -> str:
    values = sorted((float(row["ratio"]), f"{row['layer']} x{row['batch']}") for row in part)
    ratios = [value for value, _ in values]
    below = sum(value < LEAST for value in ratios)
    rate = geometric_mean([float(row["gflops"]) for row in part])
    worst = ", ".join(f"{name} {value:.2f}" for value, name in values[:WORST])
    mean = geometric_mean(ratios)
    return f"{label:24} {len(part):6} {mean:8.3f} {ratios[0]:6.2f} {below:6} {rate:8.1f}  {worst}"


def summary(rows: list[dict]) -> str:
    """Ratios of torch's time in its better layout to honed's in its better one; GF/s is honed's mean."""
    out = []
    columns = ("suite", "dtype", "threads", "level", "provider", "clock")
    ours = [row for row in rows if row["ratio"]]
    for (suite, dtype, threads, level, provider, clock), part in grouped(ours, columns).items():
        best = better_layouts(part)
        out.append(f"{suite}, {dtype}, {threads} threads, {level}, {clock} time: {provider}")
        head = f"{'':24} {'layers':>6} {'geomean':>8} {'min':>6} {'<' + str(LEAST):>6} {'GF/s':>8}  worst"
        out.append(head)
        out.append(_verdict("all", best))
        by_layout = grouped(part, ("layout",)).items()
        out += [_verdict(f"  {layout}", of_layout) for (layout,), of_layout in by_layout]
        for (batch,), of_batch in grouped(best, ("batch",)).items():
            out.append(_verdict(f"  batch {batch}", of_batch))
        by_kind = grouped(best, ("kind",))
        out += [_verdict(f"  {kind}", by_kind[kind,]) for kind in KINDS if (kind,) in by_kind]
        out += [_verdict(f"  {net}", of_net) for (net,), of_net in grouped(best, ("net",)).items()]
        disturbed = sum(map(is_disturbed, best))
        if disturbed:
            out.append(f"  {disturbed} layers disturbed by other programs")
    return "\n".join(out)


def newest(rows: list[dict]) -> list[dict]:
    key = ("suite", "dtype", "threads", "level", "layer", "batch", "provider", "layout", "clock")
    return [part[-1] for part in grouped(rows, key).values()]


if __name__ == "__main__":
    paths = [Path(name) for name in sys.argv[1:]] or sorted(RESULTS.glob("*-conv.csv"))
    if not paths:
        sys.exit(f"conv_report: no *-conv.csv in {RESULTS}, expected one from bench/conv.py")
    for each in paths:
        with each.open(newline="") as file:
            print(f"{each.stem}\n{summary(newest(list(csv.DictReader(file))))}")

"""Summary and plots of bench/results/*-gemm.csv, the newest row of each shape.

python bench/gemm_report.py            # prints the summary, writes <machine>-gemm-<suite>.svg
"""

from __future__ import annotations

import csv
import math
import statistics
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
WORST = 5
LEAST = 0.85
BUSY = 0.05  # of the cores: what other programs may take while a shape is timed


def number(row: dict, column: str) -> float:
    return float(row[column] or 0)


def share(row: dict) -> float:
    """Of the limit that binds: operations or reading the weight."""
    return max(number(row, "share_of_peak"), number(row, "share_of_bandwidth"))


def line(rows: list[dict]) -> str:
    """What gemm.py prints of a shape as it goes."""
    if not rows:
        return "nothing to time"
    parts = []
    for row in rows:
        versus = f" x{row['ratio']:.2f}" if row["ratio"] != "" else ""
        unit = f"{row['p50_us']:.0f}" if row["p50_us"] > 100 else f"{row['p50_us']:.2f}"
        parts.append(f"{row['provider']} {unit} us {100 * share(row):.0f} %{versus}")
    first = rows[0]
    noise = f"  (others took {100 * first['others']:.0f} % of the cores)" if first["others"] > BUSY else ""
    return f"{first['suite']:9} {first['threads']} {first['shape']:20} " + "; ".join(parts) + noise


def newest(rows: list[dict]) -> list[dict]:
    key = ("suite", "shape", "threads", "provider", "level")
    return list({tuple(str(row[name]) for name in key): row for row in rows}.values())


def grouped(rows: list[dict], columns: tuple[str, ...]) -> dict[tuple, list[dict]]:
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[name]) for name in columns), []).append(row)
    return groups


def best_of_ours(rows: list[dict]) -> list[dict]:
    """Of each shape the faster of a packed and a plain weight."""
    by_shape = grouped(rows, ("shape",))
    return [max(of_shape, key=lambda row: number(row, "ratio")) for of_shape in by_shape.values()]


def verdict(rows: list[dict]) -> str:
    ratios = sorted((number(row, "ratio"), row["shape"], row["peer"]) for row in rows)
    values = [ratio for ratio, _, _ in ratios]
    mean = math.exp(statistics.fmean(map(math.log, values)))
    worst = ", ".join(f"{shape} {ratio:.2f} ({peer})" for ratio, shape, peer in ratios[:WORST])
    below = sum(value < LEAST for value in values)
    median = 100 * statistics.median(map(share, rows))
    return f"{len(rows):6} {mean:8.3f} {values[0]:7.3f} {below:6} {median:6.0f} %  {worst}"


def summary(rows: list[dict]) -> str:
    """Ratios to the fastest peer of each shape. Above 1: honed is faster."""
    head = ("suite", "threads", "provider", "shapes", "geomean", "min", f"<{LEAST}", "share")
    out = ["{:14} {:7} {:13} {:>6} {:>8} {:>7} {:>6} {:>8}  worst".format(*head)]
    compared = [row for row in newest(rows) if row["ratio"] != ""]
    for (suite, threads), of_suite in grouped(compared, ("suite", "threads")).items():
        by_provider = {name: part for (name,), part in grouped(of_suite, ("provider",)).items()}
        if len(by_provider) > 1:
            by_provider["the better"] = best_of_ours(of_suite)
        for provider, part in by_provider.items():
            out.append(f"{suite:14} {threads:7} {provider:13} {verdict(part)}")
        peers = [row["peer"] for row in best_of_ours(of_suite)]
        counts = ", ".join(f"{name} {peers.count(name)}" for name in sorted(set(peers)))
        out.append(f"{'':22} fastest peer: {counts}")
        disturbed = sum(number(row, "others") > BUSY for row in best_of_ours(of_suite))
        if disturbed:
            out.append(f"{'':22} {disturbed} shapes disturbed by other programs: time them again (--resume)")
    return "\n".join(out)


def plot(rows: list[dict], suite: str, path: Path) -> None:
    """Share of the limit over the size of the product, a panel a family and thread count."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = suite  # the same figures give the same file
    panels = {
        "squares": ("square",),
        "layers": ("gpt2", "bert", "smollm2", "llama1b", "llama7b"),
        "convolutions": ("resnet50",),
        "odd and skinny": ("odd", "skinny-k", "skinny-n", "tiny"),
    }
    counts = sorted({row["threads"] for row in rows}, reverse=True)
    panels = {title: names for title, names in panels.items() if any(r["family"] in names for r in rows)}
    figure, axes = pyplot.subplots(
        len(counts), len(panels), figsize=(4 * len(panels), 3 * len(counts)), sharey=True, squeeze=False
    )
    for threads, line_of_axes in zip(counts, axes, strict=True):
        for (title, names), axis in zip(panels.items(), line_of_axes, strict=True):
            of_panel = [r for r in rows if r["threads"] == threads and r["family"] in names]
            ours, peers = [], []
            for of_shape in grouped(of_panel, ("shape",)).values():
                for kept, wanted in ((ours, True), (peers, False)):
                    found = [r for r in of_shape if r["provider"].startswith("honed") is wanted]
                    if found:
                        best = min(found, key=lambda r: number(r, "p50_us"))
                        kept.append(
                            (number(best, "gflops") * number(best, "p50_us") * 1e3, 100 * share(best))
                        )
            for points, colour, label in ((peers, "#c2603a", "fastest peer"), (ours, "#1f6f8b", "honed")):
                axis.plot(
                    [x for x, _ in points], [y for _, y in points], "o", color=colour, ms=4, label=label
                )
            axis.set_xscale("log")
            axis.set_ylim(0, 105)
            axis.grid(alpha=0.3)
            axis.set_title(f"{title}, {threads} threads" if threads != "1" else f"{title}, 1 thread", size=10)
        line_of_axes[0].set_ylabel("% of the limit")
    for axis in axes[-1]:
        axis.set_xlabel("operations")
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"{suite}: share of measured peak (up to 16 rows: or of read bandwidth, if that is more)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    paths = [Path(name) for name in sys.argv[1:]] or sorted(RESULTS.glob("*-gemm.csv"))
    if not paths:
        sys.exit(f"gemm_report: no *-gemm.csv in {RESULTS}, expected one from bench/gemm.py")
    for each in paths:
        with each.open(newline="") as file:
            newest_rows = newest(list(csv.DictReader(file)))
        print(f"{each.stem}\n{summary(newest_rows)}")
        for (name,), of_name in grouped(newest_rows, ("suite",)).items():
            plot(of_name, name, each.with_name(f"{each.stem}-{name}.svg"))

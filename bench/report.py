"""Markdown tables of the newest rows in bench/results/*.csv.

python bench/report.py                      # both tables of every machine; gemm_report.py has the products
python bench/report.py bench/results/x.csv  # of one file
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def newest(rows: list[dict], key: tuple[str, ...]) -> list[dict]:
    """The last row appended for each key, in the order in which the keys first came."""
    found = {}
    for row in rows:
        found[tuple(row[name] for name in key)] = row
    return list(found.values())


def table(head: list[str], lines: list[list[str]]) -> str:
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])


def times(value: str) -> str:
    return f"{float(value):.2f}" if value else ""


def op_table(rows: list[dict]) -> str:
    """One line an op, case and dtype: honed beside torch, from the same rounds."""
    rows = newest(rows, ("op", "case", "dtype", "provider", "level", "threads"))
    theirs = {(r["op"], r["case"], r["dtype"], r["threads"]): r for r in rows if r["provider"] == "torch"}
    lines = []
    for row in (r for r in rows if r["provider"] == "honed"):
        torchs = theirs.get((row["op"], row["case"], row["dtype"], row["threads"]), {})
        names = [row["op"], row["case"], row["dtype"], row["level"], row["threads"]]
        figures = [
            row["p50_us"],
            torchs.get("p50_us", ""),
            times(row["ratio"]),
            row["gflops"],
            row["gbytes_s"],
        ]
        lines.append(names + figures)
    head = [
        "op",
        "case",
        "dtype",
        "level",
        "threads",
        "honed us",
        "torch us",
        "torch / honed",
        "GFLOP/s",
        "GB/s",
    ]
    return table(head, lines)


def model_table(rows: list[dict]) -> str:
    """One line a model and provider. A ratio above 1: this provider is faster than the other."""
    lines = []
    for row in newest(rows, ("model", "provider", "threads")):
        lines.append(
            [
                row["model"],
                row["provider"],
                row["threads"],
                row["decode_tokens_s"],
                times(row["decode_vs_hf"]),
                times(row["decode_vs_peer"]),
                f"{100 * float(row['share_of_bandwidth']):.0f} %",
                row["prefill_tokens_s"],
                times(row["prefill_vs_hf"]),
                times(row["prefill_vs_peer"]),
                row["peer"],
            ]
        )
    head = ["model", "provider", "threads", "decode tokens/s", "x hf", "x peer", "of bandwidth"]
    return table([*head, "prefill tokens/s", "x hf", "x peer", "peer"], lines)


def report(path: Path) -> str:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return f"{path.name}: no rows"
    make = model_table if "decode_tokens_s" in rows[0] else op_table
    stamps = sorted({f"{row['sha']} of {row['date']}" for row in rows})
    return f"{path.stem}, {', '.join(stamps)}\n\n{make(rows)}"


if __name__ == "__main__":
    paths = [Path(name) for name in sys.argv[1:]] or [
        path for path in sorted(RESULTS.glob("*.csv")) if not path.stem.endswith("-gemm")
    ]
    if not paths:
        sys.exit(f"report: no CSV files in {RESULTS}, expected some from bench/run.py or bench/e2e.py")
    print("\n\n".join(report(path) for path in paths))

"""Times attention and the other kernels of transformers beside torch's, forward and backward.

    python bench/transformer.py                                   # every suite, f32 and bf16
    python bench/transformer.py --suite attention,decode --dtype f32
    python bench/transformer.py --suite rows --only layer_norm --no-csv
    python bench/transformer.py --memory                          # peak memory, a process a figure

Suites: attention, attention-backward, attention-dropout (forward and backward), decode (one query), masks
(what masks cost, beside the same without), rows (norms, activations, softmax; ``'`` is the backward), losses,
adamw.
Results are checked against float64 before they are timed: honed may be as wrong as twice torch.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import statistics
import subprocess
import sys

import harness
import torch
import transformer_cases as cases
import transformer_rows as rows_of
from gemm_report import BUSY, grouped

import honed

SUITES = {
    "attention": cases.attention,
    "attention-backward": cases.attention_backward,
    "attention-dropout": cases.attention_dropout,
    "decode": cases.decode,
    "masks": cases.masks,
    "rows": rows_of.rows,
    "losses": rows_of.losses,
    "adamw": rows_of.adamw,
}
LEAST = 0.9


def _as_list(results):
    return [results] if isinstance(results, torch.Tensor) else list(results)


def errors(case: cases.Case) -> dict[str, float]:
    """Largest difference from float64 by provider, as a part of the largest value."""
    reference = _as_list(case.reference())
    scale = max(r.abs().max().item() for r in reference) or 1.0
    return {
        name: max(
            (a.double() - r.double()).abs().max().item()
            for a, r in zip(_as_list(call()), reference, strict=True)
        )
        / scale
        for name, call in case.results.items()
    }


def is_right(case: cases.Case, found: dict[str, float]) -> bool:
    eps = torch.finfo(cases.DTYPES[case.dtype]).eps
    return found["honed"] <= 2 * found.get("torch", 0.0) + 4 * eps


def limit_of(case: cases.Case, threads: int) -> float:
    """Seconds that the machine needs for the case."""
    if case.flops:
        kinds = ["f32 FMA", "bf16 dot"] if case.dtype == "bf16" else ["f32 FMA"]
        return case.flops / max(harness.peak_rate(kind, threads, 3) for kind in kinds)
    return case.bytes / harness.read_bandwidth(min(case.bytes, 256e6) / 1e6, threads, 3)


def run(case: cases.Case, threads: int, seconds: float) -> tuple[list[dict], bool]:
    with torch.set_grad_enabled("backward" in case.name or case.name.endswith("'") or "-" in case.suite):
        found = errors(case) if case.flops <= 2 * cases.MOST_FLOPS else {"honed": 0.0}
        if not is_right(case, found):
            print(f"{case.suite} {case.name} {case.dtype}: not timed, error {found}", flush=True)
            return [], False
        limit = limit_of(case, threads)
        times, others = harness.quietest(case.calls, seconds)
    limit = min(limit, limit_of(case, threads))
    rows = []
    for name, taken in times.items():
        ratio = harness.ratio(times[case.base], taken) if name == "honed" else ""
        versus = harness.ratio(times["torch"], taken) if name == "honed" and "torch" in times else ""
        rows.append(
            {
                "suite": case.suite,
                "case": case.name,
                "dtype": case.dtype,
                "threads": threads,
                "provider": name,
                "p20_us": round(taken.p20 * 1e6, 2),
                "p50_us": round(taken.p50 * 1e6, 2),
                "p80_us": round(taken.p80 * 1e6, 2),
                "share": round(limit / taken.p50, 4),
                "error": f"{found.get(name, 0.0):.1e}",
                "ratio": round(versus, 4) if versus != "" else "",
                "base": case.base,
                "ratio_to_base": round(ratio, 4) if ratio != "" else "",
                "others": round(others, 3),
                "level": honed.info().level,
                "sha": harness.git_sha(),
                "date": harness.today(),
            }
        )
    shown = "; ".join(
        f"{r['provider']} {r['p50_us']:.1f} us {100 * r['share']:.0f} %"
        + (f" x{r['ratio_to_base']:.2f}" if r["ratio_to_base"] != "" else "")
        for r in rows
    )
    noise = f"  (others took {100 * others:.0f} % of the cores)" if others > BUSY else ""
    print(f"{case.suite} {case.dtype} {case.name}: {shown}{noise}", flush=True)
    return rows, True


def summary(rows: list[dict]) -> str:
    """Torch's time by honed's, above 1: honed is faster."""
    out = [f"{'suite':20} {'dtype':5} {'cases':>6} {'geomean':>8} {'min':>6} {'<' + str(LEAST):>5}  worst"]
    ours = [row for row in rows if row["ratio"] not in ("", None)]
    for (suite, dtype), part in grouped(ours, ("suite", "dtype")).items():
        halves = {"": part}
        if suite == "attention":
            halves |= {
                " full": [r for r in part if "causal" not in r["case"]],
                " causal": [r for r in part if "causal" in r["case"]],
            }
        if suite == "rows":
            halves |= {
                " forward": [r for r in part if not r["case"].endswith("'")],
                " backward": [r for r in part if r["case"].endswith("'")],
            }
        for label, group in halves.items():
            if not group:
                continue
            values = sorted((float(r["ratio"]), r["case"]) for r in group)
            mean = math.exp(statistics.fmean(math.log(v) for v, _ in values))
            worst = ", ".join(f"{name} {value:.2f}" for value, name in values[:4])
            below = sum(value < LEAST for value, _ in values)
            counts = f"{len(values):6} {mean:8.3f} {values[0][0]:6.2f} {below:5}"
            out.append(f"{suite + label:20} {dtype:5} {counts}  {worst}")
    return "\n".join(out)


PEAK = """
import resource, sys, torch, torch.nn.functional as F
sys.path.insert(0, sys.argv[3])
from honed import ops
who, what = sys.argv[1:3]
torch.set_num_threads({threads})
torch.manual_seed(0)
if what == "dropout":
    q, k, v = (torch.randn(1, 8, 2048, 64, requires_grad=True) for _ in range(3))
    attend = ops.scaled_dot_product_attention if who == "honed" else F.scaled_dot_product_attention
    run = lambda q, k, v: attend(q, k, v, dropout_p=0.1).sum().backward()
    small = [t[:, :, :64].detach().requires_grad_() for t in (q, k, v)]
    large = (q, k, v)
else:
    x, w = torch.randn(2048, 768, requires_grad=True), torch.randn(50257, 768, requires_grad=True)
    ids = torch.randint(50257, (2048,))
    loss = lambda x, w, t: (
        ops.linear_cross_entropy(x, w, t) if who == "honed" else F.cross_entropy(F.linear(x, w), t)
    )
    run = lambda x, w: loss(x, w, ids[: x.shape[0]]).backward()
    small = [x[:1].detach().requires_grad_(), w[:64].detach().requires_grad_()]
    ids_small = ids
    ids = ids % 64
    run(*small)
    ids = ids_small
    large = (x, w)
if what == "dropout":
    run(*small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(*large)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def memory(threads: int) -> None:
    """Peak of the process beyond what it held before: gradients of the inputs are part of it."""
    print(f"{'forward and backward':58} {'torch MB':>9} {'honed MB':>9} {'ratio':>6}")
    names = {
        "dropout": "attention with dropout, B1 H8 S2048 D64",
        "loss": "linear and cross-entropy, 2048 x 768 x 50257",
    }
    folder = os.path.dirname(os.path.dirname(honed.__file__))
    for what, name in names.items():
        found = {}
        for who in ("torch", "honed"):
            command = [sys.executable, "-c", PEAK.replace("{threads}", str(threads)), who, what, folder]
            found[who] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{name:58} {found['torch']:9.0f} {found['honed']:9.0f} {found['honed'] / found['torch']:6.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default=",".join(SUITES), help="comma-separated")
    parser.add_argument("--dtype", default="f32,bf16", help="comma-separated, of f32 and bf16")
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--threads", type=int, default=min(2, honed.info().cpus))
    parser.add_argument("--seconds", type=float, default=0.25, help="budget of a case, all providers")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of times")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    unknown = set(arguments.suite.split(",")) - set(SUITES)
    if unknown:
        parser.error(f"--suite {', '.join(unknown)}: expected some of {', '.join(SUITES)}")
    if arguments.memory:
        memory(arguments.threads)
        return 0
    torch.set_num_threads(arguments.threads)
    print(harness.machine_card(arguments.threads))
    path = harness.RESULTS / f"{harness.machine_name()}-transformer.csv"
    rows, all_right = [], True
    for suite in arguments.suite.split(","):
        for dtype in arguments.dtype.split(","):
            for make in SUITES[suite](dtype):
                case = make()
                if arguments.only not in case.name:
                    continue
                taken, right = run(case, arguments.threads, arguments.seconds)
                rows += taken
                all_right &= right
                if not arguments.no_csv:
                    harness.append_rows(path, taken)
                gc.collect()
    print(summary(rows))
    return int(not all_right)


if __name__ == "__main__":
    sys.exit(main())

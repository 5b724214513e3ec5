"""Times honed's ops beside torch's on the benchmark cases of their specs.

    python bench/run.py                                          # every op, every dtype of its spec
    python bench/run.py --op rms_norm --dtype float32,bfloat16
    python bench/run.py --interop                                # what a honed op between torch ops costs

The result is checked against float64 before it is timed. Providers take turns within each round;
``ratio`` is the median over the rounds of torch's time by honed's (above 1: honed is faster). HONED_ISA
chooses another CPU level.
"""

from __future__ import annotations

import argparse
import sys

import harness
import torch

import honed
from honed.testing import allowed_error, load_specs

PROVIDERS = ("honed", "torch")


def wrong_by(spec, case, dtype) -> str:
    """Empty where honed's result is within the allowed error, else what is wrong."""
    cast, wide = spec.make(case, dtype)
    as_tuple = lambda value: value if isinstance(value, tuple) else (value,)  # noqa: E731
    got, own, reference = (
        as_tuple(call(values, case.params))
        for call, values in ((spec.honed, cast), (spec.torch, cast), (spec.torch, wide))
    )
    for ours, theirs, exact in zip(got, own, reference, strict=True):
        if spec.exact or not exact.is_floating_point():
            if not torch.equal(ours, exact.to(ours.dtype)):
                return "differs from torch"
            continue
        error = (ours.double() - exact.double()).abs().max().item()
        allowed = allowed_error(exact.double(), theirs, theirs.dtype)
        if not error <= allowed:
            return f"error {error:.3g}, allowed {allowed:.3g}"
    return ""


def time_case(spec, case, dtype, providers, budget_s) -> list[dict]:
    cast, _ = spec.make(case, dtype)
    calls = {name: lambda name=name: getattr(spec, name)(cast, case.params) for name in providers}
    with torch.inference_mode():
        times = harness.interleaved(calls, budget_s)
    width = torch.finfo(dtype).bits // 8
    flops = spec.flops(case.params) if spec.flops else None
    moved = spec.bytes(case.params, width) if spec.bytes else None
    return [
        {
            "op": spec.name,
            "case": case.name,
            "dtype": str(dtype).removeprefix("torch."),
            "provider": name,
            "level": honed.info().level if name == "honed" else "",
            "threads": torch.get_num_threads(),
            "p20_us": round(times[name].p20 * 1e6, 2),
            "p50_us": round(times[name].p50 * 1e6, 2),
            "p80_us": round(times[name].p80 * 1e6, 2),
            "gflops": round(flops / times[name].p50 / 1e9, 1) if flops else "",
            "gbytes_s": round(moved / times[name].p50 / 1e9, 1) if moved else "",
            "ratio": round(harness.ratio(times["torch"], times["honed"]), 3)
            if name == "honed" and "torch" in times
            else "",
            "sha": harness.git_sha(),
            "date": harness.today(),
        }
        for name in providers
    ]


def run_ops(specs, dtypes, providers, budget_s) -> tuple[list[dict], bool]:
    rows, all_right = [], True
    print(
        f"{'op':24} {'case':20} {'dtype':9} {'honed us':>10} {'torch us':>10} {'ratio':>6} "
        f"{'GFLOP/s':>8} {'GB/s':>7}"
    )
    for spec in specs:
        for case in (c for c in spec.cases if c.bench):
            for dtype in (d for d in spec.dtypes if not dtypes or d in dtypes):
                wrong = wrong_by(spec, case, dtype)
                name = f"{spec.name:24} {case.name:20} {str(dtype).removeprefix('torch.'):9}"
                if wrong:
                    all_right = False
                    print(f"{name} not timed: {wrong}")
                    continue
                taken = time_case(spec, case, dtype, providers, budget_s)
                rows += taken
                by = {row["provider"]: row for row in taken}
                ours, theirs = by.get("honed", {}), by.get("torch", {})
                one = ours or theirs
                print(
                    f"{name} {ours.get('p50_us', ''):>10} {theirs.get('p50_us', ''):>10} {one['ratio']:>6} "
                    f"{one['gflops']:>8} {one['gbytes_s']:>7}"
                )
    return rows, all_right


def interop_times(spec, case, budget_s) -> dict[str, harness.Times]:
    square = torch.randn(384, 384)
    cast, _ = spec.make(case, torch.float32)

    def calls(*parts):
        def call():
            for part in parts:
                part()

        return call

    def mm():
        torch.mm(square, square)

    def ours():
        spec.honed(cast, case.params)

    def theirs():
        spec.torch(cast, case.params)

    candidates = {
        "mm": calls(mm),
        "honed": calls(ours),
        "torch": calls(theirs),
        "mm+honed": calls(mm, ours),
        "mm+torch": calls(mm, theirs),
    }
    with torch.inference_mode():
        return harness.interleaved(candidates, budget_s)


def run_interop(specs, budget_s) -> None:
    """Alternates torch.mm with each op: threads that fight for the cores make the pair dearer than its parts.

    The 20th percentile is compared: what other programs take from the machine falls on the slow side.
    """
    print(f"{'op':24} {'case':20} {'mm us':>8} {'op us':>8} {'pair us':>8} {'pair/parts':>10}   with torch's")
    for spec in specs:
        cases = [c for c in spec.cases if c.bench]
        if not cases or torch.float32 not in spec.dtypes:
            continue
        t = {name: times.p20 for name, times in interop_times(spec, cases[-1], budget_s).items()}
        factor = {name: t[f"mm+{name}"] / (t["mm"] + t[name]) for name in PROVIDERS}
        print(
            f"{spec.name:24} {cases[-1].name:20} {t['mm'] * 1e6:8.1f} {t['honed'] * 1e6:8.1f} "
            f"{t['mm+honed'] * 1e6:8.1f} {factor['honed']:10.2f}   {factor['torch']:.2f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--op", default="", help="comma-separated; default: all")
    parser.add_argument(
        "--dtype", default="", help="comma-separated torch names; default: those of each spec"
    )
    parser.add_argument("--providers", default=",".join(PROVIDERS))
    parser.add_argument("--threads", type=int, default=honed.info().cpus)
    parser.add_argument("--seconds", type=float, default=1.0, help="budget of a case")
    parser.add_argument("--interop", action="store_true")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    known = load_specs()
    names = arguments.op.split(",") if arguments.op else list(known)
    providers = arguments.providers.split(",")
    for given, allowed, what in ((names, known, "--op"), (providers, PROVIDERS, "--providers")):
        unknown = [name for name in given if name not in allowed]
        if unknown:
            parser.error(f"{what} {', '.join(unknown)}: expected some of {', '.join(allowed)}")
    dtypes = [getattr(torch, name) for name in arguments.dtype.split(",") if name]
    torch.set_num_threads(arguments.threads)
    print(harness.machine_card(arguments.threads))
    specs = [known[name] for name in names]
    if arguments.interop:
        run_interop(specs, arguments.seconds)
        return 0
    rows, all_right = run_ops(specs, dtypes, providers, arguments.seconds)
    if not arguments.no_csv:
        harness.append_rows(harness.RESULTS / f"{harness.machine_name()}.csv", rows)
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main())

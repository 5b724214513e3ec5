"""``honed bench``: ops beside torch's."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import honed
from honed.cli._options import AsJson


def bench(
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds a case.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Times honed's ops beside torch's; a ratio above 1 means that honed is faster."""
    import torch

    from honed.testing import load_specs

    specs = load_specs()
    unknown = sorted(set(op or ()) - set(specs))
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: expected one of {', '.join(specs)}", param_hint="--op"
        )
    kind = getattr(torch, dtype, None)
    if kind not in (torch.float32, torch.float16, torch.bfloat16):
        raise typer.BadParameter(f"{dtype}: expected float32, float16 or bfloat16", param_hint="--dtype")
    rows = []
    for name in op or specs:
        for case in specs[name].cases:
            if case.bench and kind in specs[name].dtypes:
                rows.append(
                    {"op": name, "case": case.name, "dtype": dtype, **_time(specs[name], case, kind, rounds)}
                )
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(
        "op", "case", "honed us", "torch us", "torch / honed", title=f"{honed.info().level}, {dtype}"
    )
    for row in rows:
        table.add_row(
            row["op"], row["case"], *(f"{row[key]:.2f}" for key in ("honed_us", "torch_us", "ratio"))
        )
    Console().print(table)


def _time(spec, case, kind, rounds) -> dict:
    """Medians of both and of their ratio; the two take turns, so that a busy machine slows both."""
    values, _ = spec.make(case, kind)
    calls = {
        "honed": lambda: spec.honed(values, case.params),
        "torch": lambda: spec.torch(values, case.params),
    }
    repeats = {}
    for name, call in calls.items():
        call()
        begin = time.perf_counter()
        call()
        repeats[name] = max(1, int(0.01 / (time.perf_counter() - begin + 1e-9)))
    taken = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            taken[name].append((time.perf_counter() - begin) / repeats[name] * 1e6)
    middle = lambda numbers: sorted(numbers)[len(numbers) // 2]  # noqa: E731
    ratios = [theirs / ours for ours, theirs in zip(taken["honed"], taken["torch"], strict=True)]
    return {"honed_us": middle(taken["honed"]), "torch_us": middle(taken["torch"]), "ratio": middle(ratios)}

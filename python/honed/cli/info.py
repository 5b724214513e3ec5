"""``honed info``: what honed found on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

import honed
from honed.cli._options import AsJson


def info(as_json: AsJson = False) -> None:
    """Version, CPU levels, threads, torch and CUDA as found here."""
    found = asdict(honed.info())
    if as_json:
        print(json.dumps(found))
        return
    table = Table(show_header=False, box=None)
    for name, value in found.items():
        table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    Console().print(table)

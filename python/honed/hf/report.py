"""What runs where in a model, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from honed._lib import _core
from honed.hf.hone import LEFT_ALONE
from honed.hf.model import HonedModel


@dataclass(frozen=True)
class Row:
    """One kind of module; ``count`` of them look the same."""

    module: str
    count: int
    replaced_by: str  # "" when it was left alone
    kernel: str
    dtype: str
    bytes: int
    reason: str


@dataclass(frozen=True)
class Report:
    """Printed as a table; ``fallbacks`` counts the calls that ran on torch, by reason."""

    model: str
    mode: str
    rows: tuple[Row, ...]
    calls: int = 0
    fallbacks: Counter = field(default_factory=Counter)
    note: str = ""  # what became of the packed cache

    @property
    def bytes(self) -> int:
        """Memory of the packed weights."""
        return sum(row.bytes for row in self.rows)

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{self.model}: {self.mode}")
        for name in ("module", "n", "replaced by", "kernel", "dtype"):
            table.add_column(name)
        table.add_column("MB", justify="right")
        reasons = any(row.reason for row in self.rows)
        if reasons:
            table.add_column("reason")
        for row in self.rows:
            size = f"{row.bytes / 1e6:.1f}" if row.bytes else ""
            cells = (row.module, str(row.count), row.replaced_by, row.kernel, row.dtype, size)
            table.add_row(*cells, *((row.reason,) if reasons else ()))
        console = Console(width=140, no_color=True)
        with console.capture() as capture:
            console.print(table)
        lines = [f"on the engine: {self.calls} calls, {self.bytes / 1e6:.1f} MB packed"]
        lines += [f"on torch: {count} x {reason}" for reason, count in self.fallbacks.most_common()]
        lines += [self.note] if self.note else []
        return capture.get() + "\n".join(lines)


def report(model) -> Report:
    """Which of a model's modules honed runs, by which kernel, and the reason for those it left alone."""
    name = type(model).__name__
    if not isinstance(model, HonedModel):
        reason = model.__dict__.get(LEFT_ALONE, "not honed")
        return Report(name, "plain torch", (Row(name, 1, "", "torch", "", 0, reason),))
    handle = model._honed
    mode = "training, on torch" if handle.train else handle.weights or "exact"
    if handle.train or not handle.ready(model, thorough=True):
        reason = "hone(train=True) keeps the model on torch" if handle.train else handle.reason
        return Report(
            name, mode, (Row(name, 1, "", "torch", "", 0, reason),), handle.calls, handle.fallbacks.copy()
        )
    return Report(name, mode, tuple(_rows(handle)), handle.calls, handle.fallbacks.copy(), handle.cache_note)


def _rows(handle):
    level = _core.level()
    groups: dict[tuple, list[int]] = {}
    seen = set()  # tied parts share a packed weight
    for part in handle.binding.parts:
        shown = part.names[0] if part.layer is None else part.names[0].replace(f".{part.layer}.", ".*.", 1)
        if len(part.names) > 1:
            shown = ", ".join((shown, *(other.rpartition(".")[2] for other in part.names[1:])))
        if part.packed:
            packed = handle.packs[part.key, part.layer]
            size, dtype = 0 if packed in seen else packed.nbytes, packed.kind
            seen.add(packed)
            by, kernel = f"engine {part.key}", f"{level} packed {dtype}"
        else:
            weight = part.modules[0].weight
            size, by, kernel = 0, f"engine {part.key}", level
            dtype = str(weight.dtype).removeprefix("torch.")
        entry = groups.setdefault((shown, by, kernel, dtype), [0, 0])
        entry[0] += 1
        entry[1] += size
    for (shown, by, kernel, dtype), (count, size) in groups.items():
        yield Row(shown, count, by, kernel, dtype, size, "")

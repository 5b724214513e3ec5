"""What runs where in a model, and why."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from honed._lib import _core
from honed.fold import Note, notes
from honed.hf.model import HonedModel
from honed.nn.swap import LAYERS, layers, packs


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
    by_layers = model.__dict__.get(LAYERS)
    if by_layers is not None:
        mode = f"{by_layers.storage or 'exact'}, by layers"
        return Report(name, mode, (_on_torch(name, by_layers.reason), *_layer_rows(model, by_layers.unread)))
    if not isinstance(model, HonedModel):
        return Report(name, "plain torch", (_on_torch(name, "not honed"),))
    handle = model._honed
    ready = handle.ready(model, thorough=True)
    rows = tuple(_rows(handle)) if ready else (_on_torch(name, handle.reason),)
    mode = handle.weights or "exact"
    return Report(name, mode, rows, handle.calls, handle.fallbacks.copy(), handle.cache_note)


def _on_torch(name: str, reason: str) -> Row:
    return Row(name, 1, "", "torch", "", 0, reason)


def _layer_rows(model, unread):
    """Layers of one name but for their numbers are one row; of those left alone, all of one class."""
    groups: dict[tuple, list] = {}
    seen = set()  # packed weights: layers that share one count it once
    level = _core.level()
    fused = notes(model, unread)
    for name, module, reason in layers(model):
        dtype = next((str(p.dtype) for p in module.parameters() if p is not None), "")
        dtype = dtype.removeprefix("torch.")
        if reason is not None:
            groups.setdefault((type(module).__name__, "", "torch", dtype, reason), []).append(0)
            continue
        shown = _starred(name) or type(module).__name__
        held = packs(module)
        if module in fused and fused[module].packed is not None:
            held.append(fused[module].packed)
        size = sum(packed.nbytes for packed in held if id(packed) not in seen)
        seen.update(map(id, held))
        op = getattr(module, "op", "")  # layers of layers have none of their own
        kernel = f"{level} {op}" if op else ""
        if held:
            kernel = f"{level} packed {', '.join(sorted({packed.kind for packed in held}))}"
        by = f"honed.nn.{type(module).__name__}"
        note = fused.get(module, Note())
        if note.inside:
            by, kernel = f"part of {_starred(note.inside)}", ""
        elif note.steps:
            kernel = f"{kernel} + {note.steps}"
        groups.setdefault((shown, by, kernel, dtype, note.reason), []).append(size)
    for (shown, by, kernel, dtype, reason), sizes in groups.items():
        yield Row(shown, len(sizes), by, kernel, dtype, sum(sizes), reason)


def _starred(name: str) -> str:
    """A module's name without its numbers."""
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name)


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

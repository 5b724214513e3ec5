"""OpSpec: the cases of an op, its torch twin, its operation and byte counts, and the error it may make."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from honed import _core

# Half an ulp is the best any result rounded to the type can have; the floor allows four.
_FLOOR_ULPS = 4
REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Case:
    """One set of shapes and options. ``bench`` marks the cases that benchmarks time."""

    name: str
    params: Mapping[str, object]
    bench: bool = False


@dataclass(frozen=True)
class OpSpec:
    """Everything that tests and benchmarks need to know of an op.

    ``inputs(params, generator)`` makes float64 (or integer) tensors by name. ``honed(inputs, params)`` and
    ``torch(inputs, params)`` compute the op on inputs cast to a dtype; the reference is ``torch`` in
    float64. ``exact`` marks ops that only move data. ``gradients`` names the inputs that get one.
    """

    name: str
    cases: tuple[Case, ...]
    inputs: Callable[[Mapping, torch.Generator], dict]
    honed: Callable[[dict, Mapping], torch.Tensor]
    torch: Callable[[dict, Mapping], torch.Tensor]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16)
    exact: bool = False
    gradients: tuple[str, ...] = ()
    flops: Callable[[Mapping], float] | None = None
    bytes: Callable[[Mapping, int], float] | None = None  # (params, bytes an element)
    keep: frozenset = field(default_factory=frozenset)  # inputs that keep their own dtype

    def make(self, case: Case, dtype: torch.dtype, seed: int = 0) -> tuple[dict, dict]:
        """Inputs rounded to ``dtype``, and the same values in float64 for the reference."""
        generator = torch.Generator().manual_seed(seed)
        made = self.inputs(case.params, generator)
        cast = {
            name: value.to(dtype)
            if isinstance(value, torch.Tensor) and value.is_floating_point() and name not in self.keep
            else value
            for name, value in made.items()
        }
        wide = {
            name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for name, value in cast.items()
        }
        return cast, wide


def allowed_error(reference: torch.Tensor, torchs: torch.Tensor, dtype: torch.dtype) -> float:
    """Twice torch's own largest error at this dtype, and a floor of a few ulp of the largest value."""
    finite = torch.isfinite(reference)
    if not finite.any():
        return 0.0
    own = (torchs.double() - reference)[finite].abs().max().item()
    ulps = 2 * _FLOOR_ULPS if dtype == torch.float64 else _FLOOR_ULPS  # there the reference errs as much
    floor = ulps * torch.finfo(dtype).eps / 2 * reference[finite].abs().max().item()
    return 2 * own + floor


@contextlib.contextmanager
def cpu_level(name: str):
    """Runs the kernels of one CPU level inside the ``with`` block."""
    before = _core.level()
    _core.set_level(name)
    try:
        yield
    finally:
        _core.set_level(before)


def load_specs() -> dict[str, OpSpec]:
    """Every ``SPEC`` of ``honed.testing.specs``, by op name."""
    package = importlib.import_module("honed.testing.specs")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return {name: importlib.import_module(f"honed.testing.specs.{name}").SPEC for name in names}

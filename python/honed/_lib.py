"""Loads the extension and says what it found."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

from honed._version import __version__


def _find_torch():
    try:
        found = importlib.util.find_spec("torch")
    except ValueError:  # sys.modules["torch"] is None: imports of torch are blocked
        return None
    return importlib.import_module("torch") if found else None


# torch first: its OpenMP team is then there to share.
torch = _find_torch()

from honed import _core  # noqa: E402

_core.attach_openmp()


@dataclass(frozen=True)
class Info:
    """What this installation of honed is and runs on."""

    version: str
    level: str  # the CPU level in use
    levels_usable: tuple[str, ...]  # that this machine runs
    levels_compiled: tuple[str, ...]  # in this binary
    threads: int
    cpus: int
    openmp: str | None  # the runtime whose threads are shared, or None: honed's own pool
    torch: str | None
    fp16_sums: bool  # linear(accumulate="fp16") sums in float16 on this CPU; elsewhere in float32
    cuda: str  # the CUDA library, or why there is none


def info() -> Info:
    """Version, CPU levels, threads, torch and CUDA as found in this process."""
    return Info(
        version=__version__,
        level=_core.level(),
        levels_usable=tuple(_core.usable_levels()),
        levels_compiled=tuple(_core.compiled_levels()),
        threads=_core.num_threads(),
        cpus=_core.num_cpus(),
        openmp=_core.attach_openmp(),
        torch=torch.__version__ if torch else None,
        fp16_sums=_core.half_sums_pay(),
        cuda="not in this version: tensors on a GPU go to torch's own kernels",
    )


def set_num_threads(n: int) -> None:
    """Threads that honed's kernels use; 0 follows ``torch.set_num_threads``. Never more than the CPUs."""
    if not isinstance(n, int) or n < 0:
        raise ValueError(f"set_num_threads: n is {n!r}, expected a whole number of at least 0")
    _core.set_num_threads(n)


def get_num_threads() -> int:
    """Threads that a call made now would use."""
    return _core.num_threads()

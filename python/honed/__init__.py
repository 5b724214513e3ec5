"""honed: hand-written kernels for PyTorch and Hugging Face models.

>>> import honed
>>> honed.info().level in honed.info().levels_usable
True
"""

import importlib

from honed import ops
from honed._lib import Info, get_num_threads, info, set_num_threads
from honed._version import __version__

__all__ = [
    "Info",
    "__version__",
    "generation",
    "get_num_threads",
    "hone",
    "info",
    "models",
    "nn",
    "ops",
    "report",
    "set_num_threads",
    "train",
    "unhone",
]


def __getattr__(name):
    # Modules need torch, hone() and its companions transformers' classes too; NumPy users load neither.
    if name in ("generation", "models", "nn", "train"):
        return importlib.import_module(f"honed.{name}")
    if name in ("hone", "report", "unhone"):
        from honed import hf

        return getattr(hf, name)
    raise AttributeError(f"module 'honed' has no attribute {name!r}")

"""Functional ops: names, argument order and defaults of ``torch.nn.functional``; NumPy arrays too."""

from honed.ops.rms_norm import rms_norm

__all__ = [
    "rms_norm",
]

"""Functional ops: names, argument order and defaults of ``torch.nn.functional``; NumPy arrays too."""

from honed.ops.rms_norm import rms_norm
from honed.ops.sample import sample
from honed.ops.scaled_dot_product_attention import scaled_dot_product_attention

__all__ = [
    "rms_norm",
    "sample",
    "scaled_dot_product_attention",
]

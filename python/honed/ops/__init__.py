"""Functional ops: names, argument order and defaults of ``torch.nn.functional``; NumPy arrays too."""

from honed._lib import torch as _torch_module
from honed.ops.adamw_step import adamw_step
from honed.ops.cross_entropy import cross_entropy
from honed.ops.embedding import embedding
from honed.ops.gelu import gelu
from honed.ops.layer_norm import layer_norm
from honed.ops.linear import linear
from honed.ops.linear_cross_entropy import linear_cross_entropy
from honed.ops.matmul import matmul
from honed.ops.quantize_weight import quantize_weight
from honed.ops.rms_norm import rms_norm
from honed.ops.rope import rope, rope_table
from honed.ops.sample import sample
from honed.ops.scaled_dot_product_attention import scaled_dot_product_attention
from honed.ops.silu import silu
from honed.ops.softmax import softmax

if _torch_module is not None:
    from honed.ops import _library

    _library.register()

__all__ = [
    "adamw_step",
    "cross_entropy",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "matmul",
    "quantize_weight",
    "rms_norm",
    "rope",
    "rope_table",
    "sample",
    "scaled_dot_product_attention",
    "silu",
    "softmax",
]

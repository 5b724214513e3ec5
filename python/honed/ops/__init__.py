"""Functional ops: names, argument order and defaults of ``torch.nn.functional``; NumPy arrays too."""

from honed._lib import torch as _torch_module
from honed.ops.adamw_step import adamw_step
from honed.ops.adaptive_avg_pool import adaptive_avg_pool1d, adaptive_avg_pool2d
from honed.ops.add_layer_norm import add_layer_norm
from honed.ops.add_rms_norm import add_rms_norm
from honed.ops.avg_pool import avg_pool1d, avg_pool2d
from honed.ops.batch_norm import batch_norm
from honed.ops.conv import conv1d, conv2d, conv3d
from honed.ops.conv_bn_relu import conv_bn_relu
from honed.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from honed.ops.cross_entropy import cross_entropy
from honed.ops.dropout import dropout
from honed.ops.embedding import embedding
from honed.ops.geglu import geglu
from honed.ops.gelu import gelu
from honed.ops.group_norm import group_norm
from honed.ops.layer_norm import layer_norm
from honed.ops.linear import linear
from honed.ops.linear_cross_entropy import linear_cross_entropy
from honed.ops.log_softmax import log_softmax
from honed.ops.matmul import matmul
from honed.ops.max_pool import max_pool1d, max_pool2d
from honed.ops.quantize_weight import quantize_weight
from honed.ops.relu import relu
from honed.ops.rms_norm import rms_norm
from honed.ops.rope import rope, rope_table
from honed.ops.sample import sample
from honed.ops.scaled_dot_product_attention import scaled_dot_product_attention
from honed.ops.silu import silu
from honed.ops.softmax import softmax
from honed.ops.swiglu import swiglu

if _torch_module is not None:
    from honed.ops import _library

    _library.register()

__all__ = [
    "adamw_step",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "add_layer_norm",
    "add_rms_norm",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_bn_relu",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "embedding",
    "geglu",
    "gelu",
    "group_norm",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "matmul",
    "max_pool1d",
    "max_pool2d",
    "quantize_weight",
    "relu",
    "rms_norm",
    "rope",
    "rope_table",
    "sample",
    "scaled_dot_product_attention",
    "silu",
    "softmax",
    "swiglu",
]

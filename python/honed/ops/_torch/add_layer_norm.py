"""add_layer_norm in torch: shapes, gradients."""

import torch

from honed.ops._torch import _norm

AddLayerNorm = _norm.add_norm("add_layer_norm", torch.nn.functional.layer_norm)
composed = _norm.composed(torch.nn.functional.layer_norm)

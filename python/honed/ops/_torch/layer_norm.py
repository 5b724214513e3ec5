"""layer_norm in torch: shapes, gradients."""

import torch

from honed.ops._torch._norm import norm

LayerNorm = norm("layer_norm", torch.nn.functional.layer_norm)

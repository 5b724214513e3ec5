"""silu in torch: shapes, gradients."""

import torch

from honed.ops._torch._pointwise import activation

Silu = activation("silu", torch.nn.functional.silu)

"""swiglu in torch: shapes, gradients."""

import torch

from honed.ops._torch._pointwise import gated

Swiglu = gated("swiglu", torch.nn.functional.silu)

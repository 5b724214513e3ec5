"""rms_norm in torch: shapes, gradients."""

import torch

from honed.ops._torch._norm import norm

RmsNorm = norm("rms_norm", torch.nn.functional.rms_norm)

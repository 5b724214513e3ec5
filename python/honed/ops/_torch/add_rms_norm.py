"""add_rms_norm in torch: shapes, gradients."""

import torch

from honed.ops._torch import _norm

AddRmsNorm = _norm.add_norm("add_rms_norm", torch.nn.functional.rms_norm)
composed = _norm.composed(torch.nn.functional.rms_norm)

"""add_rms_norm on the cases of add_layer_norm."""

import torch

from honed import ops
from honed.testing.specs.add_layer_norm import spec

SPEC = spec("add_rms_norm", ops.add_rms_norm, torch.nn.functional.rms_norm, "weight")

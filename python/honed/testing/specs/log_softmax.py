"""log_softmax on the cases of softmax."""

import dataclasses

import torch

from honed import ops
from honed.testing.specs.softmax import SPEC as SOFTMAX
from honed.testing.specs.softmax import call

SPEC = dataclasses.replace(
    SOFTMAX, name="log_softmax", honed=call(ops.log_softmax), torch=call(torch.nn.functional.log_softmax)
)

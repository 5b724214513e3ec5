"""gelu in torch: shapes, gradients."""

import torch

from honed.ops._torch._pointwise import activation


def plain(input, tanh):
    """torch's own."""
    return torch.nn.functional.gelu(input, approximate="tanh" if tanh else "none")


Gelu = activation("gelu", plain)

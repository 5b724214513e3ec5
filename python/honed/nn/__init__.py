"""Modules of ``torch.nn`` on honed's kernels: same constructors, same ``state_dict``."""

from honed.nn.linear import Linear

__all__ = ["Linear"]

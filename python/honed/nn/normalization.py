"""torch.nn's normalisations on honed's kernels."""

from __future__ import annotations

import torch

from honed.ops import group_norm, layer_norm, rms_norm


class LayerNorm(torch.nn.LayerNorm):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions; torch's arguments.

    Runs :func:`honed.ops.layer_norm`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html

    >>> LayerNorm(2, eps=0.0, bias=False)(torch.tensor([[1.0, 3.0]])).tolist()
    [[-1.0, 1.0]]
    """

    op = "layer_norm"

    def forward(self, input):
        if isinstance(input, torch.Tensor):
            return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
        return super().forward(input)  # what torch.fx traces with


class RMSNorm(torch.nn.RMSNorm):
    """``y = x / sqrt(mean(x^2) + eps) * weight`` over the last dimensions; torch's arguments.

    Runs :func:`honed.ops.rms_norm`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RMSNorm.html

    >>> RMSNorm(2, eps=0.0)(torch.tensor([[1.0, 7.0]])).detach().round(decimals=4).tolist()
    [[0.20000000298023224, 1.399999976158142]]
    """

    op = "rms_norm"

    def forward(self, input):
        if isinstance(input, torch.Tensor):
            return rms_norm(input, self.normalized_shape, self.weight, self.eps)
        return super().forward(input)


class GroupNorm(torch.nn.GroupNorm):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over groups of channels; torch's arguments.

    Runs :func:`honed.ops.group_norm`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GroupNorm.html

    >>> GroupNorm(1, 2, eps=0.0, affine=False)(torch.tensor([[[1.0], [3.0]]])).tolist()
    [[[-1.0], [1.0]]]
    """

    op = "group_norm"

    def forward(self, input):
        if isinstance(input, torch.Tensor):
            return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        return super().forward(input)

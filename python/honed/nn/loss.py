"""torch.nn's losses on honed's kernels."""

from __future__ import annotations

import torch

from honed.ops import cross_entropy


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """``-log softmax(input)[target]``, averaged or summed; torch's arguments.

    Runs :func:`honed.ops.cross_entropy`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html

    >>> CrossEntropyLoss()(torch.tensor([[0.0, 1000.0]]), torch.tensor([1])).item()
    0.0
    """

    op = "cross_entropy"

    def forward(self, input, target):
        if isinstance(input, torch.Tensor):
            return cross_entropy(
                input,
                target,
                weight=self.weight,
                ignore_index=self.ignore_index,
                reduction=self.reduction,
                label_smoothing=self.label_smoothing,
            )
        return super().forward(input, target)  # what torch.fx traces with

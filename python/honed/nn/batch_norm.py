"""torch.nn's batch normalisations on honed's kernels."""

from __future__ import annotations

import torch
from torch.nn.functional import batch_norm


class _BatchNorm:
    """What the batch norms share."""

    op = "batch_norm"

    def forward(self, input):
        run = batch_norm
        if isinstance(input, torch.Tensor):
            self._check_input_dim(input)
        else:
            run = torch.nn.functional.batch_norm  # what torch.fx traces with
        training, share = self.training, self.momentum
        updates = training and self.track_running_stats
        if updates and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if share is None:  # the mean over all batches
                share = 1.0 / float(self.num_batches_tracked)
        mean, var = self.running_mean, self.running_var
        if training and not updates:
            mean = var = None
        alone = training or (mean is None and var is None)  # of this batch alone
        share = 0.0 if share is None else share
        return run(input, mean, var, self.weight, self.bias, alone, share, self.eps)


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d):
    """:class:`BatchNorm2d` of ``(N, C)`` or ``(N, C, L)``; torch's arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html

    >>> BatchNorm1d(1, eps=0.0, affine=False)(torch.tensor([[1.0], [3.0]])).tolist()
    [[-1.0], [1.0]]
    """


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias`` a channel; torch's arguments.

    In training mean and variance are the batch's, and the running ones move towards them; after ``eval()``
    they are the running ones.

    Source: Ioffe and Szegedy, https://arxiv.org/abs/1502.03167;
    https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html

    >>> BatchNorm2d(1, eps=0.0, affine=False)(torch.tensor([[[[1.0, 3.0]]]])).tolist()
    [[[[-1.0, 1.0]]]]
    """


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d):
    """:class:`BatchNorm2d` of ``(N, C, D, H, W)``; torch's arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm3d.html

    >>> BatchNorm3d(2).eval()(torch.zeros(1, 2, 3, 3, 3)).shape
    torch.Size([1, 2, 3, 3, 3])
    """

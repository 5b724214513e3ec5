"""torch.nn.Dropout on honed's kernels."""

from __future__ import annotations

import torch

from honed.ops import dropout


class Dropout(torch.nn.Dropout):
    """Zeroes each value with probability ``p`` in training and scales the others by ``1 / (1 - p)``.

    Torch's arguments; runs :func:`honed.ops.dropout`. After one ``torch.manual_seed`` the same values are
    dropped every time, other ones than torch's kernel drops.

    Source: Srivastava et al., https://jmlr.org/papers/v15/srivastava14a.html;
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html

    >>> Dropout(0.5).eval()(torch.ones(2)).tolist()
    [1.0, 1.0]
    """

    op = "dropout"

    def forward(self, input):
        if isinstance(input, torch.Tensor):
            return dropout(input, self.p, self.training, self.inplace)
        return super().forward(input)  # what torch.fx traces with

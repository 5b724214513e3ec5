"""torch.nn.Embedding on honed's kernels."""

from __future__ import annotations

import torch

from honed.ops import embedding


class Embedding(torch.nn.Embedding):
    """``y[..., :] = weight[input[...], :]``; torch's arguments.

    Runs :func:`honed.ops.embedding`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html

    >>> Embedding(5, 3)(torch.tensor([[0, 4]])).shape
    torch.Size([1, 2, 3])
    """

    op = "embedding"

    def forward(self, input):
        if isinstance(input, torch.Tensor):
            return embedding(
                input,
                self.weight,
                self.padding_idx,
                self.max_norm,
                self.norm_type,
                self.scale_grad_by_freq,
                self.sparse,
            )
        return super().forward(input)  # what torch.fx traces with

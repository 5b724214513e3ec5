"""torch.nn's activations on honed's kernels."""

from __future__ import annotations

import torch

from honed.ops import gelu, log_softmax, relu, silu, softmax


class GELU(torch.nn.GELU):
    """``y = x P(x)``, ``P`` the normal distribution function or its tanh approximation; torch's arguments.

    Runs :func:`honed.ops.gelu`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GELU.html

    >>> GELU()(torch.tensor([0.0])).tolist()
    [0.0]
    """

    op = "gelu"

    def forward(self, input):
        if isinstance(input, torch.Tensor):
            return gelu(input, self.approximate)
        return super().forward(input)  # what torch.fx traces with


class SiLU(torch.nn.SiLU):
    """``y = x / (1 + e^-x)``; torch's arguments. ``inplace=True`` runs torch's own op.

    Runs :func:`honed.ops.silu`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SiLU.html

    >>> SiLU()(torch.tensor([0.0])).tolist()
    [0.0]
    """

    op = "silu"

    def forward(self, input):
        if isinstance(input, torch.Tensor) and not self.inplace:
            return silu(input)
        return super().forward(input)


class ReLU(torch.nn.ReLU):
    """``y = max(x, 0)``; torch's arguments. ``inplace=True`` runs torch's own op.

    Runs :func:`honed.ops.relu`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html

    >>> ReLU()(torch.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    op = "relu"

    def forward(self, input):
        if isinstance(input, torch.Tensor) and not self.inplace:
            return relu(input)
        return super().forward(input)


class ReLU6(torch.nn.ReLU6):
    """``y = min(max(x, 0), 6)``; torch's arguments.

    Alone it is torch's own op; :func:`honed.hone` fuses it into the convolution or product before it.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU6.html

    >>> ReLU6()(torch.tensor([-1.0, 2.0, 9.0])).tolist()
    [0.0, 2.0, 6.0]
    """


class Softmax(torch.nn.Softmax):
    """``y = e^x / sum(e^x)`` over one dimension; torch's arguments.

    Runs :func:`honed.ops.softmax`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html

    >>> Softmax(dim=-1)(torch.zeros(2)).tolist()
    [0.5, 0.5]
    """

    op = "softmax"

    def forward(self, input):
        if isinstance(input, torch.Tensor):
            return softmax(input, self.dim, _stacklevel=5)
        return super().forward(input)


class LogSoftmax(torch.nn.LogSoftmax):
    """``y = x - log(sum(e^x))`` over one dimension; torch's arguments.

    Runs :func:`honed.ops.log_softmax`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html

    >>> LogSoftmax(dim=-1)(torch.zeros(1)).tolist()
    [0.0]
    """

    op = "log_softmax"

    def forward(self, input):
        if isinstance(input, torch.Tensor):
            return log_softmax(input, self.dim, _stacklevel=5)
        return super().forward(input)

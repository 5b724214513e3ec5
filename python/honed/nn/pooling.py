"""torch.nn's pooling layers on honed's kernels."""

from __future__ import annotations

import torch
from honed.ops import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)


class _MaxPool:
    op = "max_pool"

    def forward(self, input):
        if not isinstance(input, torch.Tensor):
            return super().forward(input)  # what torch.fx traces with
        return self._pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )


class MaxPool1d(_MaxPool, torch.nn.MaxPool1d):
    """:class:`MaxPool2d` over one dimension; torch's arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool1d.html

    >>> MaxPool1d(2)(torch.tensor([[1.0, 2.0, 5.0, 3.0]])).tolist()
    [[2.0, 5.0]]
    """

    _pool = staticmethod(max_pool1d)


class MaxPool2d(_MaxPool, torch.nn.MaxPool2d):
    """The largest value of each window; torch's arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html

    >>> MaxPool2d(2)(torch.tensor([[[1.0, 2.0], [5.0, 3.0]]])).tolist()
    [[[5.0]]]
    """

    _pool = staticmethod(max_pool2d)


class AvgPool1d(torch.nn.AvgPool1d):
    """:class:`AvgPool2d` over one dimension; torch's arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool1d.html

    >>> AvgPool1d(2)(torch.tensor([[1.0, 2.0, 5.0, 3.0]])).tolist()
    [[1.5, 4.0]]
    """

    op = "avg_pool"

    def forward(self, input):
        if not isinstance(input, torch.Tensor):
            return super().forward(input)
        return avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )


class AvgPool2d(torch.nn.AvgPool2d):
    """The mean of each window; torch's arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html

    >>> AvgPool2d(2)(torch.tensor([[[1.0, 2.0], [6.0, 3.0]]])).tolist()
    [[[3.0]]]
    """

    op = "avg_pool"

    def forward(self, input):
        if not isinstance(input, torch.Tensor):
            return super().forward(input)
        return avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class _AdaptiveAvgPool:
    op = "adaptive_avg_pool"

    def forward(self, input):
        if not isinstance(input, torch.Tensor):
            return super().forward(input)
        return self._pool(input, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool, torch.nn.AdaptiveAvgPool1d):
    """:class:`AdaptiveAvgPool2d` over one dimension; torch's arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool1d.html

    >>> AdaptiveAvgPool1d(1)(torch.tensor([[1.0, 2.0]])).tolist()
    [[1.5]]
    """

    _pool = staticmethod(adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool, torch.nn.AdaptiveAvgPool2d):
    """Means of as many windows as the output has values; torch's arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html

    >>> AdaptiveAvgPool2d(1)(torch.tensor([[[1.0, 2.0]]])).tolist()
    [[[1.5]]]
    """

    _pool = staticmethod(adaptive_avg_pool2d)

"""A small convolutional network for small images."""

from __future__ import annotations

import torch
from torch import nn


class ConvNet(torch.nn.Module):
    """Stages of convolution, batch norm and ReLU, each at half the size of the one before; then the mean.

    Args:
        channels: of the images. classes: how many there are.
        widths: channels of the stages; between two of them the image shrinks by two.
        dropout: share of the last stage's means that training drops.

    Shapes: images ``(B, channels, H, W)`` of any size from ``2 ** (len(widths) - 1)`` on, to logits
    ``(B, classes)``.

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998; Ioffe and Szegedy
    (batch norm), https://arxiv.org/abs/1502.03167

    >>> model = ConvNet(1, 10)
    >>> model(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self, channels: int = 1, classes: int = 10, *, widths=(16, 32, 64, 128), dropout: float = 0.1
    ):
        super().__init__()
        stages, before = [], channels
        for i, width in enumerate(widths):
            if i > 0:
                stages.append(nn.MaxPool2d(2))
            stages += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.features = torch.nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        """Logits ``(B, classes)``."""
        x = self.pool(self.features(x))
        return self.head(self.dropout(torch.flatten(x, 1)))

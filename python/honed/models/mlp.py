"""A multilayer perceptron."""

from __future__ import annotations

import torch

from honed import nn


class MLP(torch.nn.Module):
    """Linear layers with ReLU between them; with no hidden layer it is logistic regression.

    Args:
        inputs: how many values an example has; images are flattened.
        outputs: how many classes.
        hidden: the widths between.
        dropout: share of hidden values that training drops.

    Shapes: ``(B, ...)`` of ``inputs`` values each to logits ``(B, outputs)``.

    Source: Rosenblatt, "The perceptron", 1958; Rumelhart, Hinton and Williams,
    https://doi.org/10.1038/323533a0

    >>> model = MLP(784, 10, hidden=(64, 32))
    >>> model(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(self, inputs: int, outputs: int, *, hidden=(512, 256), dropout: float = 0.1):
        super().__init__()
        widths = [inputs, *hidden]
        layers = []
        for before, after in zip(widths, hidden, strict=False):
            layers += [nn.Linear(before, after), torch.nn.ReLU(), nn.Dropout(dropout)]
        self.layers = torch.nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                torch.nn.init.zeros_(layer.bias)

    def forward(self, x):
        """Logits ``(B, outputs)``."""
        return self.layers(torch.flatten(x, 1))

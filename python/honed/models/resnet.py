"""Residual networks with torchvision's names, so that its weights load."""

from __future__ import annotations

import torch
from torch import nn

from honed.models import _folder


def _conv_bn(before, after, size, stride=1):
    """A convolution that keeps the image's size (over the stride) and the norm after it."""
    conv = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    return conv, nn.BatchNorm2d(after)


def _shortcut(before, after, stride):
    """The input as the sum at a block's end needs it: as it is, or fitted by a 1x1 convolution."""
    fits = stride == 1 and before == after
    return torch.nn.Sequential(*([] if fits else _conv_bn(before, after, 1, stride)))


class BasicBlock(torch.nn.Module):
    """Two 3x3 convolutions and the sum with the input."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = _conv_bn(before, width, 3, stride)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _conv_bn(width, width, 3)
        self.downsample = _shortcut(before, width, stride)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class Bottleneck(torch.nn.Module):
    """A 3x3 convolution between a 1x1 that narrows and one that widens four times, and the sum."""

    expansion = 4

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = _conv_bn(before, width, 1)
        self.conv2, self.bn2 = _conv_bn(width, width, 3, stride)
        self.conv3, self.bn3 = _conv_bn(width, 4 * width, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(before, 4 * width, stride)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


_LAYERS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(torch.nn.Module):
    """Names what is on a photo.

    Args:
        layers: 18, 34, 50, 101 or 152.
        channels: of the images. classes: how many there are.

    Shapes: images ``(B, channels, H, W)``, 224 x 224 as a rule, to logits ``(B, classes)``.

    Source: He et al., https://arxiv.org/abs/1512.03385; names and the place of the stride as in
    https://docs.pytorch.org/vision/stable/models/resnet.html

    Raises:
        ValueError: another number of layers.

    >>> model = ResNet(18, classes=10).eval()
    >>> model(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(self, layers: int = 50, *, channels: int = 3, classes: int = 1000):
        super().__init__()
        if layers not in _LAYERS:
            raise ValueError(f"ResNet: got {layers} layers, expected one of {list(_LAYERS)}")
        block, counts = _LAYERS[layers]
        self.conv1, self.bn1 = _conv_bn(channels, 64, 7, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        before = 64
        for i, count in enumerate(counts):
            width, stage = 64 << i, []
            for j in range(count):
                stage.append(block(before, width, 2 if i > 0 and j == 0 else 1))
                before = width * block.expansion
            setattr(self, f"layer{i + 1}", torch.nn.Sequential(*stage))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @classmethod
    def from_pretrained(cls, folder) -> ResNet:
        """Reads torchvision's weights: see :meth:`MobileNetV2.from_pretrained`; finds the layers by itself.

        Raises:
            FileNotFoundError: no weights. ValueError: no ResNet of these sizes. RuntimeError: weights of
            another shape.
        """
        state = _folder.weights(folder)
        stages = ({n.split(".")[1] for n in state if n.startswith(f"layer{i}.")} for i in (1, 2, 3, 4))
        counts = tuple(map(len, stages))
        block = Bottleneck if "layer1.0.conv3.weight" in state else BasicBlock
        layers = next((n for n, made in _LAYERS.items() if made == (block, counts)), None)
        if layers is None or "fc.weight" not in state:
            raise ValueError(
                f"ResNet.from_pretrained: {folder} has blocks {counts}, expected those of a ResNet-18 to 152"
            )
        model = cls(layers, channels=state["conv1.weight"].shape[1], classes=len(state["fc.weight"]))
        return _folder.fill(model, state)

    def forward(self, x):
        """Logits ``(B, classes)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))

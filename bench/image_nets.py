"""The networks whose layers bench/conv.py times and that bench/image_models.py runs, of torch.nn alone.

ResNet-50, VGG-16 and MobileNetV2 have torchvision's names, so its files load. They are what torch and the
other peers are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(inputs, outputs, kernel=3, stride=1, groups=1, activation=nn.ReLU6) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)]
    layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, *([activation(inplace=True)] if activation else []))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """https://arxiv.org/abs/1512.03385, the stride in the 3x3 layers as in torchvision."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            width, made = 64 << stage, []
            for block in range(blocks):
                made.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
                inputs = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class VGG16(nn.Module):
    """https://arxiv.org/abs/1409.1556"""

    def __init__(self, classes: int = 1000):
        super().__init__()
        layers, inputs = [], 3
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        head = [nn.Linear(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 4096)]
        self.classifier = nn.Sequential(*head, nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, classes))

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, kernel: int = 3):
        super().__init__()
        hidden = inputs * expansion
        layers = [conv_bn(inputs, hidden, 1)] if expansion != 1 else []
        layers.append(conv_bn(hidden, hidden, kernel, stride, groups=hidden))
        layers += list(conv_bn(hidden, outputs, 1, activation=None))
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class Inverted(nn.Module):
    """A stem, inverted residuals and a 1x1 layer: rows of expansion, outputs, blocks, stride, kernel."""

    def __init__(self, rows, inputs: int = 32, classes: int = 1000):
        super().__init__()
        layers = [conv_bn(3, inputs, 3, 2)]
        for expansion, outputs, blocks, stride, kernel in rows:
            for block in range(blocks):
                layers.append(InvertedResidual(inputs, outputs, 1 if block else stride, expansion, kernel))
                inputs = outputs
        self.features = nn.Sequential(*layers, conv_bn(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


def mobilenet_v2() -> Inverted:
    """https://arxiv.org/abs/1801.04381, table 2."""
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
    return Inverted([(*row, 3) for row in (*rows, (6, 320, 1, 1))])


def efficientnet_lite0() -> Inverted:
    """EfficientNet-B0 (https://arxiv.org/abs/1905.11946, table 1) without squeeze-excitation, with ReLU6."""
    rows = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5)]
    return Inverted([*rows, (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)])


def lenet5() -> nn.Sequential:
    """On 28 x 28 digits, padded to 32 x 32; C5 is the 5x5 layer that leaves one pixel."""
    first = [nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh()]
    head = [nn.AvgPool2d(2), nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh()]
    return nn.Sequential(*first, *head, nn.Linear(84, 10))


class UNet(nn.Module):
    """https://arxiv.org/abs/1505.04597 with padded convolutions."""

    def __init__(self, inputs: int = 3, classes: int = 2, width: int = 64):
        super().__init__()
        widths = [width << level for level in range(5)]

        def double(before, after):
            layers = [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
            return nn.Sequential(*layers, nn.Conv2d(after, after, 3, padding=1), nn.ReLU(inplace=True))

        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(double(a, b) for a, b in ((inputs, width), *pairs))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(pairs))
        self.merge = nn.ModuleList(double(b, a) for a, b in reversed(pairs))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        kept = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if kept else x)
            kept.append(x)
        kept.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([kept.pop(), up(x)], 1))
        return self.head(x)


def dcgan() -> nn.Sequential:
    """The generator of https://arxiv.org/abs/1511.06434: 4x4 transposed convolutions of stride 2."""
    layers, inputs = [nn.ConvTranspose2d(100, 512, 4, bias=False)], 512
    for outputs in (256, 128, 64, 3):
        layers += [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
        layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False))
        inputs = outputs
    return nn.Sequential(*layers, nn.Tanh())


def whisper_tiny() -> nn.Sequential:
    """The two layers before the encoder: 80 mel bands, 30 s in steps of 10 ms."""
    second = nn.Conv1d(384, 384, 3, stride=2, padding=1)
    return nn.Sequential(nn.Conv1d(80, 384, 3, padding=1), nn.GELU(), second, nn.GELU())


def conv_net(classes: int = 10) -> nn.Sequential:
    """Small, for images of 32 x 32: what the training step is timed on."""
    layers, inputs = [], 3
    for width in (32, 64, 128):
        layers += [conv_bn(inputs, width, activation=nn.ReLU), conv_bn(width, width, activation=nn.ReLU)]
        layers.append(nn.MaxPool2d(2))
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


@dataclass(frozen=True)
class Net:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one input


NETS = {
    "resnet50": Net(ResNet50, (3, 224, 224)),
    "vgg16": Net(VGG16, (3, 224, 224)),
    "mobilenetv2": Net(mobilenet_v2, (3, 224, 224)),
    "efficientnet-lite0": Net(efficientnet_lite0, (3, 224, 224)),
    "lenet5": Net(lenet5, (1, 28, 28)),
    "unet": Net(UNet, (3, 256, 256)),
    "dcgan": Net(dcgan, (100, 1, 1)),
    "whisper-tiny": Net(whisper_tiny, (80, 3000)),
    "convnet": Net(conv_net, (3, 32, 32)),
}

"""MobileNetV2 with torchvision's names, so that its weights load."""

from __future__ import annotations

import torch
from torch import nn

from honed.models import _folder

# Of each stage: how many times its blocks widen inside, channels, blocks, the first one's stride.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _eights(channels: float) -> int:
    """The multiple of 8 nearest to ``channels``, but no more than a tenth below."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def _conv_bn_relu(before, after, size, stride=1, groups=1):
    conv = nn.Conv2d(before, after, size, stride, padding=size // 2, groups=groups, bias=False)
    return torch.nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU6(inplace=True))


class InvertedResidual(torch.nn.Module):
    """1x1 that widens, 3x3 a channel, 1x1 that narrows, and the sum with the input where the shapes agree."""

    def __init__(self, before: int, after: int, stride: int, widen: int):
        super().__init__()
        inside = before * widen
        self.conv = torch.nn.Sequential(
            *([_conv_bn_relu(before, inside, 1)] if widen > 1 else []),
            _conv_bn_relu(inside, inside, 3, stride, groups=inside),
            nn.Conv2d(inside, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = stride == 1 and before == after

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(torch.nn.Module):
    """Names what is on a photo, with a fourteenth of ResNet-50's arithmetic.

    Args:
        channels: of the images. classes: how many there are.
        width: multiplies every number of channels inside.
        dropout: share of the last features that training drops.

    Shapes: images ``(B, channels, H, W)``, 224 x 224 as a rule, to logits ``(B, classes)``.

    Source: Sandler et al., https://arxiv.org/abs/1801.04381; names as in
    https://docs.pytorch.org/vision/stable/models/mobilenetv2.html

    >>> model = MobileNetV2(classes=10, width=0.25).eval()
    >>> model(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(self, *, channels: int = 3, classes: int = 1000, width: float = 1.0, dropout: float = 0.2):
        super().__init__()
        before = _eights(32 * width)
        features = [_conv_bn_relu(channels, before, 3, stride=2)]
        for widen, after, count, stride in _STAGES:
            for i in range(count):
                features.append(
                    InvertedResidual(before, _eights(after * width), stride if i == 0 else 1, widen)
                )
                before = _eights(after * width)
        last = _eights(1280 * max(1.0, width))
        self.features = torch.nn.Sequential(*features, _conv_bn_relu(before, last, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = torch.nn.Sequential(nn.Dropout(dropout), nn.Linear(last, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")
        torch.nn.init.normal_(self.classifier[1].weight, std=0.01)
        torch.nn.init.zeros_(self.classifier[1].bias)

    @classmethod
    def from_pretrained(cls, folder, *, width: float = 1.0) -> MobileNetV2:
        """Reads torchvision's weights from a folder, or from a file itself. In eval mode.

        Args:
            folder: holds ``model.safetensors`` or a ``.pth`` file as torchvision has it.
            width: that of the weights.

        Raises:
            FileNotFoundError: no weights. ValueError: no MobileNetV2. RuntimeError: weights of another shape.
        """
        state = _folder.weights(folder)
        if "features.18.0.weight" not in state or "classifier.1.weight" not in state:
            raise ValueError(f"MobileNetV2.from_pretrained: {folder} holds another model's weights")
        channels = state["features.0.0.weight"].shape[1]
        model = cls(channels=channels, classes=len(state["classifier.1.weight"]), width=width)
        return _folder.fill(model, state)

    def forward(self, x):
        """Logits ``(B, classes)``."""
        x = self.pool(self.features(x))
        return self.classifier(torch.flatten(x, 1))

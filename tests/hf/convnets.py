"""Small convolutional networks, each with something that folding has to get right."""

import torch
from torch import nn

F = nn.functional


class Plain(nn.Module):
    """Layers as attributes, used in order."""

    def __init__(self, *layers):
        super().__init__()
        for i, layer in enumerate(layers):
            setattr(self, f"layer{i}", layer)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


class Residual(nn.Module):
    """ResNet's basic block; ``down``: with a convolution on the way around."""

    def __init__(self, down=True, inplace=True):
        super().__init__()
        wide = 8 if down else 6
        self.conv1, self.bn1 = nn.Conv2d(6, wide, 3, 1 + down, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv2, self.bn2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=inplace)
        self.down = (
            nn.Sequential(nn.Conv2d(6, wide, 1, 2, bias=False), nn.BatchNorm2d(wide)) if down else None
        )

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.down is not None:
            identity = self.down(x)
        out += identity
        return self.relu(out)


class Inverted(nn.Module):
    """MobileNetV2's block."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Sequential(nn.Conv2d(6, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True)),
            nn.Sequential(
                nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6(True)
            ),
            nn.Conv2d(12, 6, 1, bias=False),
            nn.BatchNorm2d(6),
        )

    def forward(self, x):
        return x + self.conv(x)


class Dense(nn.Module):
    """DenseNet's block: norm and activation come before the convolution; lists of values."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(_DenseLayer(6 + 4 * i) for i in range(3))

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class _DenseLayer(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.relu1, self.conv1 = nn.BatchNorm2d(inputs), nn.ReLU(True), nn.Conv2d(inputs, 8, 1)
        self.norm2, self.relu2, self.conv2 = nn.BatchNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, inputs):
        inputs = [inputs] if isinstance(inputs, torch.Tensor) else inputs
        y = self.conv1(self.relu1(self.norm1(torch.cat(inputs, 1))))
        return self.conv2(self.relu2(self.norm2(y)))


class UNet(nn.Module):
    """Down, up by a transposed convolution in groups with a batch norm, and the way across."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.mid = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.GELU())
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        across = self.down(x)
        y = self.mid(F.max_pool2d(across, 2))
        y = F.relu(self.norm(self.up(y)))
        return torch.sigmoid(self.out(torch.cat((across, y), dim=1)))


class Inception(nn.Module):
    """Branches of one input."""

    def __init__(self):
        super().__init__()
        self.one, self.bn1 = nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4, eps=0.001)
        self.two, self.bn2 = nn.Conv2d(6, 4, (1, 3), padding=(0, 1), bias=False), nn.BatchNorm2d(4, eps=0.001)
        self.three, self.bn3 = nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        a = F.relu(self.bn1(self.one(x)), inplace=True)
        b = F.relu(self.bn2(self.two(x)), inplace=True)
        c = self.bn3(self.three(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)))
        return torch.cat([a, b, c.clamp(0, 6)], 1)


class SharedConv(nn.Module):
    """One convolution with two batch norms, and with none."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn1, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x):
        return self.conv(self.bn2(self.conv(self.bn1(self.conv(x)))))


class SharedNorm(nn.Module):
    """One batch norm after two convolutions."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.bn = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)

    def forward(self, x):
        return self.bn(self.two(torch.relu(self.bn(self.one(x)))))


class TwoUsers(nn.Module):
    """What the convolution gives, and what the norm gives, is used twice."""

    def __init__(self):
        super().__init__()
        self.one, self.bn1 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.two, self.bn2 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)

    def forward(self, x):
        y = self.one(x)
        z = self.bn1(y) * y
        y = self.bn2(self.two(z))
        return F.relu(y) - y


class InPlaceWithTwoUsers(nn.Module):
    """The rectifier changes what is used again; so do sums, of the input too."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)

    def forward(self, x):
        y = self.bn(self.conv(x))
        F.relu(y, inplace=True)
        z = self.conv2(y)
        y.mul_(2)  # after conv2 has read it, before its norm
        z = self.bn2(z)
        x = x * 1
        w = x
        x += z
        z = torch.relu_(x)
        return z + w + y


class LaterInPlace(nn.Module):
    """The residual changes between the convolution and the sum."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)

    def forward(self, x):
        r = x * 2
        y = self.conv(r)
        r.relu_()
        return torch.add(self.bn(y), r).relu() + torch.add(self.bn(y), r, alpha=2)


class Ways(nn.Module):
    """Every way to write an activation."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect") for _ in range(10))
        self.hardtanh, self.other = nn.Hardtanh(0, 6), nn.Hardtanh(-1, 5)
        self.gelu = nn.GELU(approximate="tanh")

    def forward(self, x):
        c = iter(self.convs)
        x = F.hardtanh(next(c)(x), 0, 6)
        x = F.gelu(next(c)(x), approximate="tanh")
        x = self.hardtanh(next(c)(x))
        x = self.other(next(c)(x))
        x = self.gelu(next(c)(x))
        x = F.silu(next(c)(x), True)
        x = next(c)(x).relu()
        x = next(c)(x).add(x).relu_()
        x = F.dropout(next(c)(x), 0.0, self.training)
        return F.relu6(next(c)(x) + 0.5).mean([2, 3])


class Broadcast(nn.Module):
    """Sums with what has another shape or type."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.bias = (
            nn.Conv2d(6, 6, 1),
            nn.BatchNorm2d(6),
            nn.Parameter(torch.randn(6, 1, 1)),
        )

    def forward(self, x):
        y = F.relu(self.bn(self.conv(x)) + self.bias)
        y = self.bn(self.conv(y)) + x.mean((2, 3), keepdim=True)
        return torch.relu(self.bn(self.conv(y)) + x.double())


class Unreadable(nn.Module):
    """A forward that asks for shapes around blocks that can be read."""

    def __init__(self):
        super().__init__()
        self.first, self.block = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)), Residual(False)
        self.conv, self.bn = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)

    def forward(self, x):
        if x.shape[1] != 6:
            raise ValueError("channels")
        return self.bn(self.conv(self.block(self.first(x))))


def volumes():
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, bias=False), nn.BatchNorm3d(4), nn.ReLU(), nn.ConvTranspose3d(4, 2, 2)
    )


def sounds():
    up = nn.ConvTranspose1d(8, 6, 4, stride=2, padding=1, output_padding=1)
    return Plain(
        nn.Conv1d(4, 8, 5, stride=2, padding="valid"), nn.BatchNorm1d(8), nn.GELU(), up, nn.BatchNorm1d(6)
    )


def perceptron():
    return nn.Sequential(
        nn.Linear(12, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 5), nn.SiLU()
    )


def classifier():
    """LeNet's kind, with a dropout between norm and activation."""
    return nn.Sequential(
        nn.Conv2d(6, 8, 5, padding=2),
        nn.BatchNorm2d(8, affine=False),
        nn.Dropout2d(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding="same", dilation=2),
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


# name -> what makes the network, the shape of its input, how many calls become one
NETS = {
    "residual": (Residual, (2, 6, 12, 12), 3),
    "residual, no way around": (lambda: Residual(False), (2, 6, 12, 12), 2),
    "inverted residual": (Inverted, (2, 6, 9, 11), 3),
    "dense": (Dense, (2, 6, 7, 8), None),
    "u-net": (UNet, (2, 6, 12, 12), 3),
    "inception": (Inception, (2, 6, 9, 9), 3),
    "shared convolution": (SharedConv, (2, 6, 7, 8), 2),
    "shared norm": (SharedNorm, (2, 6, 7, 8), 2),
    "two users": (TwoUsers, (2, 6, 7, 8), 1),
    "in place with two users": (InPlaceWithTwoUsers, (2, 6, 7, 8), 1),
    "in place later": (LaterInPlace, (2, 6, 7, 8), None),
    "ways": (Ways, (2, 6, 9, 9), 7),
    "broadcast": (Broadcast, (2, 6, 9, 9), 3),
    "unreadable": (Unreadable, (2, 6, 9, 9), 3),
    "volumes": (volumes, (2, 2, 6, 7, 8), 1),
    "sounds": (sounds, (2, 4, 31), 2),
    "perceptron": (perceptron, (7, 12), 2),
    "classifier": (classifier, (2, 6, 16, 16), 2),
}


# Those whose gradients torch refuses to make, as the values that they need have changed.
ONLY_FORWARD = ("in place with two users", "in place later")


def net(name):
    """In eval mode, always with the same values; none of them trivial."""
    torch.manual_seed(len(name))
    made = NETS[name][0]().eval()
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for statistic in (module.weight, module.running_var):
                    if statistic is not None:
                        statistic.uniform_(0.5, 2)
                for statistic in (module.bias, module.running_mean):
                    if statistic is not None:
                        statistic.normal_()
    return made


def image(name, seed=1):
    return torch.randn(NETS[name][1], generator=torch.Generator().manual_seed(seed))

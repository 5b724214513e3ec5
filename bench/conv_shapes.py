"""The layers that bench/conv.py times: the distinct convolutions of image_nets.py, found by running them.

python bench/conv_shapes.py      # prints them
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from conv_report import KINDS
from image_nets import NETS
from torch import nn

LAYERS_OF = tuple(name for name in NETS if name != "convnet")


@dataclass(frozen=True)
class Layer:
    """A convolution and the size of its input; ``net`` is the first that has it."""

    net: str
    transposed: bool
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    has_bias: bool
    size: tuple[int, ...]  # of the input's spatial dimensions

    @property
    def options(self) -> dict:
        found = {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }
        return found | ({"output_padding": self.output_padding} if self.transposed else {})

    @property
    def function(self) -> str:
        """Its name in torch.nn.functional and honed.ops."""
        return f"conv{'_transpose' if self.transposed else ''}{len(self.size)}d"

    @property
    def module(self) -> str:
        """Its name in torch.nn and honed.nn."""
        return f"Conv{'Transpose' if self.transposed else ''}{len(self.size)}d"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        if self.transposed:
            return (self.inputs, self.outputs // self.groups, *self.kernel)
        return (self.outputs, self.inputs // self.groups, *self.kernel)

    @property
    def output_size(self) -> tuple[int, ...]:
        def of(i):
            reach = self.dilation[i] * (self.kernel[i] - 1)
            if self.transposed:
                return (
                    (self.size[i] - 1) * self.stride[i]
                    - 2 * self.padding[i]
                    + reach
                    + self.output_padding[i]
                    + 1
                )
            return (self.size[i] + 2 * self.padding[i] - reach - 1) // self.stride[i] + 1

        return tuple(map(of, range(len(self.size))))

    def flops(self, batch: int) -> float:
        """Two a multiply-add, padding counted as all libraries count it."""
        pixels = math.prod(self.size if self.transposed else self.output_size)
        return 2.0 * batch * pixels * math.prod(self.weight_shape)

    @property
    def kind(self) -> str:
        if self.transposed:
            return "transposed"
        if len(self.size) == 1:
            return "conv1d"
        if self.groups > 1 and self.groups == self.inputs:
            return "depthwise"
        if self.inputs <= 4:
            return "first"
        if self.kernel == (1, 1):
            return "1x1"
        if self.kernel == (3, 3):
            return "3x3" if self.stride == (1, 1) else "3x3 strided"
        return "5x5/7x7" if self.kernel in ((5, 5), (7, 7)) else "other"

    @property
    def name(self) -> str:
        by = lambda values: "x".join(map(str, values))  # noqa: E731
        stride = f"/{self.stride[0]}" if max(self.stride) > 1 else ""
        groups = f" g{self.groups}" if self.groups > 1 else ""
        mark = "t" if self.transposed else ""
        return f"{self.inputs}>{self.outputs} {mark}{by(self.kernel)}{stride}{groups} @{by(self.size)}"


def layer_of(net: str, module: nn.Module, size: tuple[int, ...]) -> Layer:
    return Layer(
        net,
        module.transposed,
        module.in_channels,
        module.out_channels,
        tuple(module.kernel_size),
        tuple(module.stride),
        tuple(module.padding),
        tuple(module.output_padding),
        tuple(module.dilation),
        module.groups,
        module.bias is not None,
        size,
    )


@cache
def layers(nets: tuple[str, ...] = LAYERS_OF) -> tuple[Layer, ...]:
    """Distinct ones, in the order of the networks. A bias makes no difference: every layer is timed with
    one, for batch norm becomes one."""
    found: dict[tuple, Layer] = {}

    def note(net):
        def hook(module, args, _):
            layer = layer_of(net, module, tuple(args[0].shape[2:]))
            key = (layer.function, layer.weight_shape, str(layer.options), layer.size)
            found.setdefault(key, layer)

        return hook

    for name in nets:
        with torch.device("meta"), torch.no_grad():
            model = NETS[name].make().eval()
            for module in model.modules():
                if isinstance(module, nn.modules.conv._ConvNd):
                    module.register_forward_hook(note(name))
            model(torch.empty(1, *NETS[name].shape))
    return tuple(found.values())


if __name__ == "__main__":
    for each in layers():
        print(f"{each.net:20} {each.kind:12} {each.name:28} {each.flops(1) / 1e6:10.1f} Mflop")
    totals = {kind: sum(each.kind == kind for each in layers()) for kind in KINDS}
    print(len(layers()), totals, f"{sum(each.flops(1) for each in layers()) / 1e9:.0f} Gflop at batch 1")

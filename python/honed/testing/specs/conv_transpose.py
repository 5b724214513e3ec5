"""Transposed convolutions of one to three dimensions: strides, dilations, groups, ragged sizes."""

import torch

from honed.testing.spec import REAL, OpSpec
from honed.testing.specs.conv import BOTH, case, honeds, inputs_of, torchs


def _own(params):
    own = getattr(torch.nn.functional, f"conv_transpose{len(params['input']) - 2}d")
    return lambda x, w, b: own(x, w, b, **params["options"])


def _flops(params):
    n, _, *size = params["input"]
    return 2 * n * torch.Size(size).numel() * torch.Size(params["weight"]).numel()


SPEC = OpSpec(
    name="conv_transpose",
    cases=(
        case("1d", (2, 3, 7), (3, 4, 3), stride=2, padding=1, output_padding=1),
        case("2d", (1, 2, 3, 4), (2, 3, 3, 2), stride=(2, 1), padding=(1, 0)),
        case("3d", (1, 2, 2, 3, 2), (2, 3, 2, 3, 2), with_=(), stride=(1, 2, 2), padding=(0, 1, 0)),
        case("residual", (2, 4, 3, 3), (4, 3, 2, 2), BOTH, "relu", stride=2),
        case("ragged", (2, 5, 6, 7), (5, 7, 3, 4), stride=(3, 2), padding=(1, 2), dilation=(2, 3)),
        case("gaps", (2, 5, 4, 5), (5, 7, 1, 2), BOTH, stride=3, output_padding=(2, 0)),
        case("zeros", (2, 5, 4, 5), (5, 7, 1, 2), (), stride=3),
        case("groups", (2, 6, 5, 4), (6, 5, 3, 3), stride=2, padding=1, groups=3),
        case("depthwise", (2, 6, 5, 7), (6, 1, 3, 3), stride=2, padding=1, groups=6, output_padding=1),
        case("multiplier", (2, 3, 5, 7), (3, 4, 3, 3), padding=1, groups=3),
        case("channels_last", (2, 33, 6, 5), (33, 40, 3, 3), layout=torch.channels_last, stride=2, padding=1),
        case("relu6", (2, 7, 9), (7, 5, 4), activation="relu6", stride=2, dilation=2),
        case("up", (1, 256, 28, 28), (256, 128, 2, 2), bench=True, stride=2),
        case("gradient", (1, 64, 28, 28), (64, 64, 3, 3), (), bench=True, padding=1),
    ),
    inputs=inputs_of(_own),
    honed=honeds("conv_transpose"),
    torch=torchs(_own),
    dtypes=REAL,
    gradients=("input", "weight", "bias", "residual"),
    flops=_flops,
)

"""Convolutions of one to three dimensions: kernels, strides, dilations, groups, borders, both layouts."""

import torch

from honed import ops
from honed.ops._conv import finished, geometry, torchs_conv
from honed.testing.spec import REAL, Case, OpSpec

BOTH = ("bias", "residual")


def case(name, input, weight, with_=("bias",), activation="none", layout=None, bench=False, **options):
    """Shapes, what is given besides, and the op's options."""
    params = {
        "input": input,
        "weight": weight,
        "with": with_,
        "activation": activation,
        "layout": layout,
        "options": options,
    }
    return Case(name, params, bench)


def inputs_of(own):
    """Inputs of a convolution that ``own(params)`` does in torch."""

    def inputs(params, generator):
        def values(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        made = {"input": values(*params["input"]), "weight": values(*params["weight"])}
        if params["layout"] is not None:
            made["input"] = made["input"].contiguous(memory_format=params["layout"])
        y = own(params)(made["input"], made["weight"], None)
        made["bias"] = values(y.shape[1]) if "bias" in params["with"] else None
        made["residual"] = values(*y.shape) if "residual" in params["with"] else None
        return made

    return inputs


def honeds(name):
    """honed's op of as many dimensions as the input has; without Winograd's products, whose error is another
    (tests/ops/test_winograd.py)."""

    def honed(x, params):
        function = getattr(ops, f"{name}{len(params['input']) - 2}d")
        more = {"activation": params["activation"], "residual": x["residual"], "exact": True}
        return function(x["input"], x["weight"], x["bias"], **more, **params["options"])

    return honed


def torchs(own):
    """The same in torch."""
    return lambda x, params: finished(
        own(params)(x["input"], x["weight"], x["bias"]), params["activation"], x["residual"]
    )


def _own(params):
    n = len(params["input"]) - 2
    o = params["options"]
    numbers = (o.get("stride", 1), o.get("padding", 0), o.get("dilation", 1), o.get("groups", 1))
    g = geometry("conv", n, params["weight"][2:], *numbers, o.get("padding_mode", "zeros"))
    return lambda x, w, b: torchs_conv(x, w, b, g)


def _flops(params):
    o = params["options"]
    stride, padding = o.get("stride", 1), o.get("padding", 0)
    pixels = 1
    for size, kernel in zip(params["input"][2:], params["weight"][2:], strict=True):
        pixels *= (size + 2 * padding - kernel) // stride + 1
    return 2 * params["input"][0] * pixels * torch.Size(params["weight"]).numel()


_LAST = torch.channels_last

SPEC = OpSpec(
    name="conv",
    cases=(
        case("3x3", (2, 3, 5, 4), (4, 3, 3, 3), padding=1),
        case("1d", (2, 3, 9), (4, 3, 3), BOTH, stride=2, padding=1),
        case("1x1", (2, 5, 3, 4), (7, 5, 1, 1), BOTH, "relu"),
        case("last", (2, 5, 6, 5), (6, 5, 3, 2), BOTH, "relu6", _LAST, stride=(1, 2), padding=(2, 1)),
        case("pairs", (1, 3, 6, 5), (2, 3, 3, 3), padding=((0, 2), (1, 0))),
        case("depthwise", (2, 6, 7, 6), (6, 1, 3, 3), BOTH, "relu", padding=1, groups=6),
        case("same", (1, 4, 5, 8), (3, 4, 4, 2), padding="same", dilation=(1, 2)),
        case("reflect", (2, 3, 6, 7), (5, 3, 3, 5), padding=2, padding_mode="reflect"),
        case("replicate", (2, 3, 4, 3), (5, 3, 5, 3), padding=3, padding_mode="replicate"),
        case("circular", (2, 4, 5, 6), (6, 2, 3, 3), padding=2, padding_mode="circular", groups=2),
        case("multiplier", (2, 3, 6, 5), (6, 1, 3, 2), layout=_LAST, stride=2, padding=1, groups=3),
        case("groups", (2, 9, 6, 5), (12, 3, 3, 3), layout=_LAST, padding=1, groups=3),
        case("dilation", (1, 4, 11, 9), (5, 4, 3, 3), padding=2, dilation=(3, 2), stride=(1, 2)),
        case("3d", (2, 3, 4, 5, 6), (5, 3, 3, 2, 3), BOTH, padding=1, stride=(1, 2, 1)),
        case("stem", (2, 3, 17, 19), (40, 3, 7, 7), BOTH, "relu", stride=2, padding=3),
        case("wide", (2, 35, 13, 15), (33, 35, 3, 3), BOTH, "silu", padding=1),
        case("wide_last", (2, 35, 13, 15), (33, 35, 3, 3), BOTH, "relu", _LAST, padding=1),
        case("1x1_last", (3, 33, 7, 7), (40, 33, 1, 1), BOTH, "gelu", _LAST),
        case("1x1_stride", (2, 17, 9, 8), (35, 17, 1, 1), stride=2),
        case("long", (1, 5, 400), (7, 5, 11), padding=5),
        case("one_pixel", (1, 300, 1, 1), (5, 300, 3, 3), padding=1),
        case("no_images", (0, 3, 5, 5), (4, 3, 3, 3)),
        case("64@56", (1, 64, 56, 56), (64, 64, 3, 3), layout=_LAST, padding=1, bench=True),
    ),
    inputs=inputs_of(_own),
    honed=honeds("conv"),
    torch=torchs(_own),
    dtypes=REAL,
    gradients=("input", "weight", "bias", "residual"),
    flops=_flops,
)

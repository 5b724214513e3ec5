"""Transposed convolutions of one to three dimensions: strides, dilations, groups, ragged sizes."""

import torch

from honed import ops
from honed.ops._conv import finished
from honed.testing.spec import REAL, Case, OpSpec

_BOTH = ("bias", "residual")


def _case(
    name, input, weight, with_=("bias",), activation="none", layout=None, bench=False, exact=False, **options
):
    params = {
        "input": input,
        "weight": weight,
        "with": with_,
        "activation": activation,
        "layout": layout,
        "exact": exact,
        "options": options,
    }
    return Case(name, params, bench)


def _own(params):
    return getattr(torch.nn.functional, f"conv_transpose{len(params['input']) - 2}d")


def _inputs(params, generator):
    def values(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    made = {"input": values(*params["input"]), "weight": values(*params["weight"])}
    if params["layout"] is not None:
        made["input"] = made["input"].contiguous(memory_format=params["layout"])
    y = _own(params)(made["input"], made["weight"], **params["options"])
    made["bias"] = values(y.shape[1]) if "bias" in params["with"] else None
    made["residual"] = values(*y.shape) if "residual" in params["with"] else None
    return made


def _honed(x, params):
    function = getattr(ops, f"conv_transpose{x['input'].dim() - 2}d")
    return function(
        x["input"],
        x["weight"],
        x["bias"],
        activation=params["activation"],
        residual=x["residual"],
        exact=params["exact"],
        **params["options"],
    )


def _torch(x, params):
    y = _own(params)(x["input"], x["weight"], x["bias"], **params["options"])
    return finished(y, params["activation"], x["residual"])


def _flops(params):
    n, _, *size = params["input"]
    return 2 * n * torch.Size(size).numel() * torch.Size(params["weight"]).numel()


SPEC = OpSpec(
    name="conv_transpose",
    cases=(
        _case("1d", (2, 3, 7), (3, 4, 3), stride=2, padding=1, output_padding=1),
        _case("2d", (1, 2, 3, 4), (2, 3, 3, 2), stride=(2, 1), padding=(1, 0)),
        _case("3d", (1, 2, 2, 3, 2), (2, 3, 2, 3, 2), with_=(), stride=(1, 2, 2), padding=(0, 1, 0)),
        _case("residual", (2, 4, 3, 3), (4, 3, 2, 2), _BOTH, "relu", stride=2),
        _case("ragged", (2, 5, 6, 7), (5, 7, 3, 4), stride=(3, 2), padding=(1, 2), dilation=(2, 3)),
        _case("gaps", (2, 5, 4, 5), (5, 7, 1, 2), _BOTH, stride=3, output_padding=(2, 0)),
        _case("zeros", (2, 5, 4, 5), (5, 7, 1, 2), (), stride=3),
        _case("groups", (2, 6, 5, 4), (6, 5, 3, 3), stride=2, padding=1, groups=3),
        _case("depthwise", (2, 6, 5, 7), (6, 1, 3, 3), stride=2, padding=1, groups=6, output_padding=1),
        _case("multiplier", (2, 3, 5, 7), (3, 4, 3, 3), padding=1, groups=3),
        _case(
            "channels_last", (2, 33, 6, 5), (33, 40, 3, 3), layout=torch.channels_last, stride=2, padding=1
        ),
        _case("relu6", (2, 7, 9), (7, 5, 4), activation="relu6", stride=2, dilation=2),
        _case("up", (1, 256, 28, 28), (256, 128, 2, 2), bench=True, stride=2),
        _case("gradient", (1, 64, 28, 28), (64, 64, 3, 3), (), bench=True, padding=1, exact=True),
    ),
    inputs=_inputs,
    honed=_honed,
    torch=_torch,
    dtypes=REAL,
    gradients=("input", "weight", "bias", "residual"),
    flops=_flops,
)

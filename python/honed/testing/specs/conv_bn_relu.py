"""conv_bn_relu folded and in training, with every kind of convolution and of end."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

F = torch.nn.functional
_CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_ACTIVATIONS = {
    "none": lambda y: y,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
}


def _case(name, shape, outputs, kernel, options=(), bench=False, **params):
    params = {"shape": shape, "outputs": outputs, "kernel": kernel, "options": dict(options), **params}
    return Case(name, params, bench)


def _inputs(params, generator):
    channels = params["shape"][1]
    outputs, groups = params["outputs"], params["options"].get("groups", 1)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    fan = channels // groups
    for k in params["kernel"]:
        fan *= k
    x, weight = draw(*params["shape"]), draw(outputs, channels // groups, *params["kernel"]) / fan**0.5
    made = {
        "input": x,
        "weight": weight,
        "bias": draw(outputs) if params.get("bias") else None,
        "mean": draw(outputs),
        "var": draw(outputs).square() + 0.5,
        "scale": draw(outputs) if params.get("affine", True) else None,
        "shift": draw(outputs) if params.get("affine", True) else None,
    }
    y = _CONVS[len(params["kernel"])](x, weight, **params["options"])
    made["residual"] = draw(*y.shape) if params.get("residual") else None
    return made


def _honed(x, params):
    return ops.conv_bn_relu(
        x["input"],
        x["weight"],
        x["bias"],
        x["mean"].detach().clone(),
        x["var"].detach().clone(),
        x["scale"],
        x["shift"],
        **params["options"],
        training=params.get("training", False),
        activation=params.get("activation", "relu"),
        residual=x["residual"],
        exact=True,  # the error of Winograd's products is another (tests/ops/test_winograd.py)
    )


def _torch(x, params):
    y = _CONVS[len(params["kernel"])](x["input"], x["weight"], x["bias"], **params["options"])
    statistics = x["mean"].detach().clone(), x["var"].detach().clone()
    y = F.batch_norm(y, *statistics, x["scale"], x["shift"], params.get("training", False))
    y = y if x["residual"] is None else y + x["residual"]
    return _ACTIVATIONS[params.get("activation", "relu")](y)


SPEC = OpSpec(
    name="conv_bn_relu",
    cases=(
        _case("3x3", (2, 6, 9, 11), 8, (3, 3), {"padding": 1}, bias=True),
        _case("3x3_sum", (2, 6, 9, 11), 6, (3, 3), {"padding": 1}, residual=True),
        _case("1x1_none", (2, 6, 7, 5), 9, (1, 1), activation="none", affine=False),
        _case("depthwise_relu6", (1, 12, 9, 9), 12, (3, 3), {"groups": 12, "stride": 2}, activation="relu6"),
        _case("line_silu", (2, 4, 17), 5, (4,), {"dilation": 2}, activation="silu"),
        _case("volume", (1, 2, 5, 6, 7), 3, (2, 3, 3)),
        _case("training", (3, 4, 7, 8), 5, (3, 3), {"padding": 1}, training=True),
        _case("training_sum", (3, 4, 7, 8), 5, (3, 3), training=True, residual=True, bias=True),
        _case("resnet", (1, 64, 56, 56), 64, (3, 3), {"padding": 1}, bench=True, residual=True),
    ),
    inputs=_inputs,
    honed=_honed,
    torch=_torch,
    dtypes=REAL,
    gradients=("input", "weight", "bias", "scale", "shift", "residual"),
)

"""batch_norm of vectors, sequences, images and volumes, training and not, with what may follow it."""

import torch

from honed import ops
from honed.ops._torch.batch_norm import composed
from honed.testing.spec import REAL, Case, OpSpec

_BOTH = ("weight", "bias")
_ALL = (*_BOTH, "residual")


def _inputs(params, generator):
    shape = params["shape"]

    def values(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = values(*shape) * 3 + 1
    made = {"input": x.movedim(1, -1).contiguous().movedim(-1, 1) if params["last"] else x}
    for name in _BOTH:
        made[name] = values(shape[1]) * 2 if name in params["with"] else None
    made["residual"] = values(*shape) if "residual" in params["with"] else None
    made["mean"] = values(shape[1])
    made["var"] = values(shape[1]).abs() + 0.5
    return made


def _call(function):
    def run(x, params):
        mean, var = x["mean"].clone(), x["var"].clone()
        more = params["training"], 0.1, 1e-5
        y = function(x, mean, var, more, params["activation"])
        return (y, mean, var) if params["training"] else y

    return run


def _honed(x, mean, var, more, activation):
    residual = {"activation": activation, "residual": x["residual"]}
    return ops.batch_norm(x["input"], mean, var, x["weight"], x["bias"], *more, **residual)


def _torch(x, mean, var, more, activation):
    return composed(x["input"], mean, var, x["weight"], x["bias"], x["residual"], *more, activation)


def _case(name, shape, training=True, activation="none", given=_BOTH, last=False, bench=False):
    options = {"training": training, "activation": activation, "with": given, "last": last}
    return Case(name, {"shape": shape, **options}, bench=bench)


SPEC = OpSpec(
    name="batch_norm",
    cases=(
        _case("sequence", (2, 3, 5)),
        _case("image_last", (2, 3, 4, 2), last=True, activation="relu", given=_ALL),
        _case("vector", (9, 7), activation="relu6", given=_ALL),
        _case("image", (2, 5, 7, 6), activation="relu", given=_ALL),
        _case("eval", (2, 3, 5, 7), training=False, activation="relu", given=_ALL),
        _case("eval_last", (2, 3, 5, 7), training=False, activation="relu6", given=_ALL, last=True),
        _case("volume", (2, 3, 2, 3, 5), activation="relu6"),
        _case("volume_last", (2, 3, 2, 3, 5), given=("weight",), last=True),
        _case("plain", (3, 4, 33), given=()),
        _case("eval_plain", (3, 4, 33), training=False, given=()),
        _case("bias_alone", (3, 4, 33), training=False, given=("bias",)),
        _case("residual_alone", (3, 4, 33), given=("residual",)),
        _case("eval_vector", (5, 70), training=False, activation="relu"),
        _case("channels_last", (2, 150, 9, 9), activation="relu", given=_ALL, last=True),
        _case("wide", (3, 2, 70, 65), activation="relu6", given=_ALL),
        _case("wide_last", (2, 2, 30, 65), activation="relu6", given=_ALL, last=True),
        _case("no_batch", (0, 3, 4), training=False),
        *(
            _case(f"4x64x56x56{end}{what}", (4, 64, 56, 56), training, "relu", _BOTH, bool(end), bench=True)
            for end in ("", "_last")
            for training, what in ((True, ""), (False, "_eval"))
        ),
    ),
    inputs=_inputs,
    honed=_call(_honed),
    torch=_call(_torch),
    dtypes=REAL,
    gradients=("input", *_ALL),
    bytes=lambda params, size: 3 * size * torch.Size(params["shape"]).numel(),
)

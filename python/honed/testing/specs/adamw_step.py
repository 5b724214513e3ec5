"""adamw_step over a list of tensors, several steps, every option, against torch.optim.AdamW."""

import torch

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec

_SHAPES = ((5,), (3, 7), (1,), (2, 3, 33), (0, 4), (8193,))


def _inputs(params, generator):
    made = {}
    for i, shape in enumerate(params.get("shapes", _SHAPES)):
        made[f"param{i}"] = torch.randn(shape, generator=generator, dtype=torch.float64)
        for step in range(params.get("steps", 3)):
            made[f"grad{i}_{step}"] = torch.randn(shape, generator=generator, dtype=torch.float64)
    return made


def _lists(x, params):
    count = len(params.get("shapes", _SHAPES))
    grads = [[x[f"grad{i}_{step}"] for i in range(count)] for step in range(params.get("steps", 3))]
    return [x[f"param{i}"].clone() for i in range(count)], grads


def _options(params):
    return {
        name: params[name] for name in ("lr", "betas", "eps", "weight_decay", "maximize") if name in params
    }


def _honed(x, params):
    tensors, grads = _lists(x, params)
    zeros = lambda: [torch.zeros_like(t) for t in tensors]  # noqa: E731
    averages, squares = zeros(), zeros()
    largest = zeros() if params.get("amsgrad") else None
    for step, given in enumerate(grads, 1):
        grad = [torch.empty_like(t).copy_(g) for t, g in zip(tensors, given, strict=True)]  # its strides
        ops.adamw_step(
            tensors, grad, averages, squares, step=step, max_exp_avg_sqs=largest, **_options(params)
        )
    return (*tensors, *averages, *squares)


def _torch(x, params):
    tensors, grads = _lists(x, params)
    optimizer = torch.optim.AdamW(
        tensors, **_options(params), amsgrad=params.get("amsgrad", False), fused=True
    )
    for each in grads:
        for tensor, grad in zip(tensors, each, strict=True):
            tensor.grad = grad
        optimizer.step()
    states = [optimizer.state[t] for t in tensors]
    return (*tensors, *(s["exp_avg"] for s in states), *(s["exp_avg_sq"] for s in states))


SPEC = OpSpec(
    name="adamw_step",
    cases=(
        Case("defaults", {}),
        Case("first_step", {"steps": 1}),
        Case("maximize", {"maximize": True}),
        Case("amsgrad", {"amsgrad": True}),
        Case("no_decay", {"weight_decay": 0.0, "lr": 0.1}),
        Case("options", {"lr": 0.03, "betas": (0.4, 0.7), "eps": 1e-3, "weight_decay": 0.3}),
        Case("256K", {"shapes": ((512, 512),), "steps": 1}, bench=True),
    ),
    inputs=_inputs,
    honed=_honed,
    torch=_torch,
    dtypes=REAL,
    bytes=lambda params, size: 7 * size * sum(torch.Size(s).numel() for s in params.get("shapes", _SHAPES)),
)

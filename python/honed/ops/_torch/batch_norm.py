"""batch_norm in torch: shapes, gradients."""

import torch

from honed.ops._activations import ACTIVATIONS
from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, empty_if, needs_torch
from honed.ops._torch._layout import empty_in_layout, lies_channels_last

_forward, _training = function("batch_norm"), function("batch_norm_training")
_backward = function("batch_norm_backward")


def _like(input):
    return empty_in_layout(input, input.shape, 1, lies_channels_last(input, 1))


@result_of("batch_norm")
def _(input, *rest):
    return _like(input)


@result_of("batch_norm_training")
def _(input, *rest):
    sums = torch.float64 if input.dtype == torch.float64 else torch.float32
    return _like(input), *(input.new_empty(input.shape[1], dtype=sums) for _ in range(2))


@result_of("batch_norm_backward")
def _(grad, input, result, mean, var, weight, bias, eps, activation, training, *need):
    nothing = lambda: grad.new_empty(0, dtype=torch.float32)  # noqa: E731
    need_input, need_weight, need_bias, need_residual = need
    return (
        _like(input) if need_input else nothing(),
        empty_if(need_weight, weight, grad),
        empty_if(need_bias, bias, grad),
        _like(input) if need_residual else nothing(),
    )


def composed(input, running_mean, running_var, weight, bias, residual, training, momentum, eps, activation):
    """The op in torch's own."""
    y = torch.nn.functional.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps
    )
    if residual is not None:
        y = y + residual
    if activation == "none":
        return y
    return torch.relu(y) if activation == "relu" else torch.nn.functional.relu6(y)


def _gradients(ctx, grad, mean, var, need):
    """Of input, weight, bias and residual; mean and var: the running ones, or results of the forward."""
    input, weight, bias, residual, result = ctx.saved_tensors[:5]
    if needs_torch(grad, input, weight, bias):
        running = (None, None) if ctx.training else (mean, var)
        plain = lambda x, w, b, r: composed(x, *running, w, b, r, ctx.training, 0.0, ctx.eps, ctx.activation)  # noqa: E731
        return again(plain, (input, weight, bias, residual), grad, need)
    acts = ctx.activation != "none"
    masked = need[3] and acts  # else the gradient of the residual is that of the result
    number = ACTIVATIONS.index(ctx.activation)
    found = _backward(
        *(grad, input, result, mean, var, weight, bias, ctx.eps, number, ctx.training),
        *(*need[:3], masked),
    )
    d_residual = found[3] if masked else grad
    return [g if n else None for g, n in zip((*found[:3], d_residual), need, strict=True)]


def _save(ctx, input, weight, bias, residual, out, mean, var, eps, activation, training):
    # The residual itself is needed for second derivatives of an activation alone.
    kept = (residual, out) if activation != "none" else (residual, None)
    ctx.save_for_backward(input, weight, bias, *kept, mean, var)
    ctx.eps, ctx.activation, ctx.training = eps, activation, training


class BatchNorm(torch.autograd.Function):
    """batch_norm with given moments, with gradients."""

    @staticmethod
    def forward(ctx, input, mean, var, weight, bias, residual, eps, activation):
        out = _forward(input, mean, var, weight, bias, residual, eps, ACTIVATIONS.index(activation))
        _save(ctx, input, weight, bias, residual, out, mean, var, eps, activation, False)
        return out

    @staticmethod
    def backward(ctx, grad):
        mean, var = ctx.saved_tensors[5:]
        need = (ctx.needs_input_grad[0], *ctx.needs_input_grad[3:6])
        d_input, *rest = _gradients(ctx, grad, mean, var, need)
        return d_input, None, None, *rest, None, None


class BatchNormTraining(torch.autograd.Function):
    """batch_norm with the moments of the input, with gradients; also these moments."""

    @staticmethod
    def forward(ctx, input, weight, bias, residual, eps, activation):
        number = ACTIVATIONS.index(activation)
        out, mean, var = _training(input, weight, bias, residual, eps, number)
        _save(ctx, input, weight, bias, residual, out, mean, var, eps, activation, True)
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx, grad, *_):
        mean, var = ctx.saved_tensors[5:]
        return *_gradients(ctx, grad, mean, var, ctx.needs_input_grad[:4]), None, None

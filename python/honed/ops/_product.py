"""The torch side that products share: tracing, autocast, gradients."""

from __future__ import annotations

import torch

import honed.ops as ops
from honed._lib import _core
from honed.ops._activations import ACTIVATIONS
from honed.ops._dispatch import multiplies, traced_answer, tracing

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def answer(*tensors) -> int:
    """As ``multiplies``, also while tracing: 1 the kernel runs, 2 with a gradient, 0 torch's own op."""
    if not tracing():
        return multiplies(*tensors)
    given = [t for t in tensors if t is not None]
    first = given[0].dtype
    return traced_answer(given, lambda dtype: dtype == first and dtype in _DTYPES)


def autocast_dtype():
    """The type that torch's products have under ``torch.autocast("cpu")`` now, or ``None``."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def cast(tensor, dtype):
    """What autocast does to an operand of a product: float64, integers and other devices stay."""
    if tensor is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(dtype) if tensor.device.type == "cpu" else tensor


def activate(x, activation: str):
    """By torch's own differentiable function."""
    if activation == "none":
        return x
    if activation == "gelu_tanh":
        return torch.nn.functional.gelu(x, approximate="tanh")
    if activation not in ACTIVATIONS:
        raise ValueError(f"linear: activation is {activation!r}, expected {', '.join(ACTIVATIONS)}")
    return getattr(torch.nn.functional, activation)(x)


def run_linear(input, weight, bias, activation, residual, scale, lora, half_sums=False):
    """The kernel on tensors that :func:`answer` takes; the op while tracing."""
    if not tracing():
        plus = None
        if lora is not None:
            a, b, s = lora
            plus = (_core.linear(input, a, None, "none", None, s), b.mT)
        if isinstance(weight, _core.PackedWeight):
            return _core.linear(input, weight, activation, residual, scale, plus, half_sums)
        return _core.linear(input, weight, bias, activation, residual, scale, plus)
    op = torch.ops.honed.linear.default
    if lora is None:
        return op(input, weight, bias, ACTIVATIONS.index(activation), residual, scale)
    a, b, s = lora
    base = op(input, weight, None, 0, None, scale)
    y = activate(op(op(input, a, None, 0, None, s), b, bias, 0, base, 1.0), activation)
    return y if residual is None else y + residual


def run_matmul(input, other, scale):
    """The kernel on tensors that :func:`answer` takes; the op while tracing."""
    return (
        torch.ops.honed.matmul.default(input, other, scale)
        if tracing()
        else _core.matmul(input, other, scale)
    )


def linear(input, weight, bias, residual, scale, lora):
    """The product with gradients."""
    apply = LinearFunction.apply
    a, b, s = lora or (None, None, 1.0)
    if not tracing():
        return apply(input, weight, bias, a, b, residual, scale, s)
    # torch.compile(dynamic=True) takes no float that may change into a Function: numbers stay outside.
    if scale != 1:
        y = apply(input, weight, None, None, None, None, 1.0, 1.0) * scale
        y = y if bias is None else y + bias
        y = y if residual is None else y + residual
    else:
        y = apply(input, weight, bias, None, None, residual, 1.0, 1.0)
    if lora is not None:
        u = apply(input, a, None, None, None, None, 1.0, 1.0) * s
        y = apply(u, b, None, None, None, y, 1.0, 1.0)
    return y


def matmul(input, other, scale):
    """The same of operands with two dimensions or more."""
    if not tracing():
        return MatmulFunction.apply(input, other, scale)
    y = MatmulFunction.apply(input, other, 1.0)
    return y if scale == 1 else y * scale


class LinearFunction(torch.autograd.Function):
    """``scale x W^T + s (x A^T) B^T + bias + residual``; its gradients are products of views, so that every
    further derivative exists too. A packed weight has none.
    """

    @staticmethod
    def forward(ctx, input, weight, bias, a, b, residual, scale, s):
        need = ctx.needs_input_grad
        packed = isinstance(weight, _core.PackedWeight)
        ctx.packed = weight if packed else None
        kept = input if need[1] or need[3] or need[4] else None
        ctx.save_for_backward(kept, None if packed or not need[0] else weight, a, b)
        ctx.scale, ctx.s = scale, s
        lora = None if a is None else (a, b, s)
        return run_linear(input, weight, bias, "none", residual, scale, lora)

    @staticmethod
    def backward(ctx, grad):
        input, weight, a, b = ctx.saved_tensors
        need, scale, s = ctx.needs_input_grad, ctx.scale, ctx.s
        rows = _rows(grad)
        d_input = d_weight = d_bias = d_a = d_b = None
        if need[0]:
            if ctx.packed is not None:
                weight = ctx.packed.unpack().to(grad.dtype)
            lora = None if a is None else (b.mT, a.mT, s)
            d_input = ops.linear(grad, weight.mT, scale=scale, lora=lora)
        x = None if input is None else _rows(input)
        if need[1]:
            d_weight = ops.matmul(rows.mT, x, scale=scale)
        if need[2]:
            d_bias = ops.matmul(rows.new_ones(()).expand(rows.shape[0]), rows, scale=1.0)
        if need[3]:
            d_a = ops.matmul(ops.matmul(rows, b, scale=s).mT, x, scale=1.0)
        if need[4]:
            d_b = ops.matmul(rows.mT, ops.linear(x, a, scale=s), scale=1.0)
        return d_input, d_weight, d_bias, d_a, d_b, grad if need[5] else None, None, None


class MatmulFunction(torch.autograd.Function):
    """``scale a b`` of operands with two dimensions or more."""

    @staticmethod
    def forward(ctx, a, b, scale):
        need = ctx.needs_input_grad
        ctx.save_for_backward(a if need[1] else None, b if need[0] else None)
        ctx.scale, ctx.shapes = scale, (a.shape, b.shape)
        return run_matmul(a, b, scale)

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        d_a = d_b = None
        if ctx.needs_input_grad[0]:
            d_a = _reduce(ops.matmul(grad, b.mT, scale=ctx.scale), ctx.shapes[0])
        if ctx.needs_input_grad[1]:
            shape = ctx.shapes[1]
            if len(shape) == 2:  # every matrix of a met the same b: their rows add up in one product
                a, grad = _rows(a), _rows(grad)
            d_b = _reduce(ops.matmul(a.mT, grad, scale=ctx.scale), shape)
        return d_a, d_b, None


def _rows(tensor):
    """As a matrix; ``reshape(-1, 0)`` could not tell how many rows."""
    return tensor.flatten(0, -2) if tensor.dim() > 1 else tensor.unsqueeze(0)


def _reduce(grad, shape):
    return grad if grad.shape == shape else grad.sum_to_size(shape)

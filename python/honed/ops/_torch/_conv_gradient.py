"""Convolution, its transpose and its weight's gradient: each one's gradients are the others'."""

from __future__ import annotations

import torch

from honed.ops._conv import BORDERS
from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._product import answer
from honed.ops._torch._gradient import empty_if

_conv, _transpose = function("conv"), function("conv_transpose")
_weight_gradient = function("conv_weight_gradient")

# Geometry is passed as numbers: stride, before, after and dilation, three each, groups and border, as
# _conv.flat makes them, then whether Winograd is forbidden.
_COUNT = 15


def parts(numbers, n: int):
    """stride, before, after and dilation of the ``n`` spatial dimensions, groups, border."""
    stride, before, after, dilation = (tuple(numbers[3 * i + 3 - n : 3 * i + 3]) for i in range(4))
    return stride, before, after, dilation, numbers[12], numbers[13]


def three(values, absent):
    """With the absent spatial dimensions first."""
    return (*((absent,) * (3 - len(values))), *values)


@result_of("conv_weight_gradient")
def _(grad, input, weight, *rest):
    need_weight, need_bias = rest[-2:]
    bias = grad.new_empty(grad.shape[1])
    d_weight = torch.empty_like(weight) if need_weight else empty_if(False, None, grad)
    return d_weight, empty_if(need_bias, bias, grad)


def _padding(before, after):
    """As ``torch.nn.functional.pad`` takes it."""
    return [p for pair in zip(reversed(before), reversed(after), strict=True) for p in pair]


def _without_border(numbers):
    return (*numbers[:3], *((0,) * 6), *numbers[9:13], 0, numbers[14])


def pad(input, numbers):
    """With the border made, and the geometry without one."""
    n = input.dim() - 2
    _, before, after, _, _, border = parts(numbers, n)
    mode = "constant" if border == 0 else BORDERS[border]
    plain = _without_border(numbers)
    return torch.nn.functional.pad(input, _padding(before, after), mode), plain


def fold(grad, numbers, shape):
    """The gradient of what ``pad`` was given."""
    n = len(shape) - 2
    _, before, after, _, _, border = parts(numbers, n)
    for dim, low, high, size in zip(range(2, n + 2), before, after, shape[2:], strict=True):
        if not low and not high:
            continue
        first, last = grad.narrow(dim, 0, low), grad.narrow(dim, low + size, high)
        grad = grad.narrow(dim, low, size)
        if border == 0:
            continue
        pieces = [grad]
        if BORDERS[border] == "reflect":
            ends = [(1, first.flip(dim)), (size - 1 - high, last.flip(dim))]
        elif BORDERS[border] == "replicate":
            ends = [(0, first.sum(dim, keepdim=True)), (size - 1, last.sum(dim, keepdim=True))]
        else:
            ends = [(size - low, first), (0, last)]
        for at, end in ends:
            room = [0] * (2 * grad.dim())
            room[2 * (grad.dim() - 1 - dim)] = at
            room[2 * (grad.dim() - 1 - dim) + 1] = size - at - end.shape[dim]
            pieces.append(torch.nn.functional.pad(end, room))
        grad = sum(pieces[1:], pieces[0])
    return grad


def conv(input, weight, bias, numbers):
    """The convolution, differentiable any number of times."""
    how = answer(input, weight, bias)
    if how == 2:
        return Conv.apply(input, weight, bias, *numbers)
    if how == 1:
        return _run_conv(input, weight, bias, numbers)
    stride, before, after, dilation, groups, border = parts(numbers, input.dim() - 2)
    if border or before != after:
        input, numbers = pad(input, numbers)
        before = (0,) * len(before)
    return torch.convolution(input, weight, bias, stride, before, dilation, False, before, groups)


def transposed(input, weight, bias, numbers, size):
    """The transposed convolution with an output of that spatial size; the border is of zeros."""
    how = answer(input, weight, bias)
    n = input.dim() - 2
    if how == 2:
        return ConvTranspose.apply(input, weight, bias, *numbers, *size)
    if how == 1:
        return _run_transposed(input, weight, bias, numbers, size)
    stride, before, _, dilation, groups, _ = parts(numbers, n)
    reached = [
        (count - 1) * s + d * (k - 1) + 1 - b
        for count, s, d, k, b in zip(input.shape[2:], stride, dilation, weight.shape[2:], before, strict=True)
    ]
    # torch takes one padding for both ends: what lies before goes, and the end is cut or filled.
    zeros = (0,) * n
    y = torch.convolution(input, weight, bias, stride, zeros, dilation, True, zeros, groups)
    for dim, b, s, r in zip(range(2, n + 2), before, size, reached, strict=True):
        y = y.narrow(dim, b, min(s, r))
    missing = [max(0, s - r) for s, r in zip(size, reached, strict=True)]
    if any(missing):
        blank = torch.nn.functional.pad(y, _padding(zeros, missing))
        if bias is None:
            return blank
        inside = torch.nn.functional.pad(torch.ones_like(y), _padding(zeros, missing))
        y = blank + (1 - inside) * bias.view(-1, *((1,) * n))
    return y


def _run_conv(input, weight, bias, numbers):
    return _conv(input, weight, bias, None, *numbers[:14], 0, numbers[14])


def _run_transposed(input, weight, bias, numbers, size):
    geometry = (*numbers[:6], *numbers[9:12])
    return _transpose(input, weight, bias, None, *geometry, *three(size, 1), numbers[12], 0, numbers[14])


def input_gradient(grad, weight, numbers, shape):
    """That of ``conv`` for an input of that shape."""
    if numbers[13] == 0:
        return transposed(grad, weight, None, numbers, shape[2:])
    _, before, after, *_ = parts(numbers, len(shape) - 2)
    size = tuple(s + b + a for s, b, a in zip(shape[2:], before, after, strict=True))
    plain = _without_border(numbers)
    return fold(transposed(grad, weight, None, plain, size), numbers, shape)


def weight_gradient(grad, input, weight, numbers, need_weight, need_bias):
    """Those of ``conv`` for a weight like ``weight``, of which only the shape counts, and for its bias."""
    if not need_weight:
        return None, bias_gradient(grad) if need_bias else None
    how = answer(grad, input, weight.detach())
    if how == 2:
        return WeightGradient.apply(grad, input, weight, *numbers)
    if how == 1:
        found = _run_weight(grad, input, weight, numbers, need_weight, need_bias)
        return found[0], found[1] if need_bias else None
    if numbers[13] or any(numbers[3:9]):
        input, numbers = pad(input, numbers)
    stride, before, _, dilation, groups, _ = parts(numbers, input.dim() - 2)
    mask = [False, True, need_bias]
    sizes = [grad.shape[1]]
    found = torch.ops.aten.convolution_backward(
        grad, input, weight, sizes, stride, before, dilation, False, before, groups, mask
    )
    return found[1], found[2] if need_bias else None


def bias_gradient(grad):
    """The sum over all but the channels."""
    if answer(grad) == 1:
        ones = (1,) * 3
        return _weight_gradient(grad, grad, grad, *ones, 0, 0, 0, *ones, 1, 0, False, True)[1]
    return grad.sum([d for d in range(grad.dim()) if d != 1])


def _run_weight(grad, input, weight, numbers, need_weight, need_bias):
    geometry = (*numbers[:6], *numbers[9:14])
    return _weight_gradient(grad, input, weight, *geometry, need_weight, need_bias)


class Conv(torch.autograd.Function):
    """input, weight, bias, geometry."""

    @staticmethod
    def forward(ctx, input, weight, bias, *numbers):
        need = ctx.needs_input_grad
        ctx.save_for_backward(input if need[1] else None, weight)
        ctx.numbers, ctx.shape = numbers, input.shape
        return _run_conv(input, weight, bias, numbers)

    @staticmethod
    def backward(ctx, grad):
        input, weight = ctx.saved_tensors
        need = ctx.needs_input_grad
        d_input = input_gradient(grad, weight, ctx.numbers, ctx.shape) if need[0] else None
        d_weight, d_bias = weight_gradient(grad, input, weight, ctx.numbers, need[1], need[2])
        return d_input, d_weight, d_bias, *((None,) * _COUNT)


class ConvTranspose(torch.autograd.Function):
    """input, weight, bias, geometry, spatial size of the output."""

    @staticmethod
    def forward(ctx, input, weight, bias, *rest):
        ctx.numbers, size = rest[:_COUNT], rest[_COUNT:]
        need = ctx.needs_input_grad
        ctx.save_for_backward(input if need[1] else None, weight)
        ctx.size = input.shape[2:]
        return _run_transposed(input, weight, bias, ctx.numbers, size)

    @staticmethod
    def backward(ctx, grad):
        input, weight = ctx.saved_tensors
        need, numbers = ctx.needs_input_grad, ctx.numbers
        d_input = d_weight = None
        if need[0]:
            d_input = _to_size(grad, weight, numbers, ctx.size)
        if need[1]:
            d_weight, _ = weight_gradient(input, grad, weight, numbers, True, False)
        d_bias = bias_gradient(grad) if need[2] else None
        return d_input, d_weight, d_bias, *((None,) * (_COUNT + len(ctx.size)))


def _to_size(input, weight, numbers, size):
    """The convolution whose output has that spatial size: what it does not read is cut off or padded."""
    n = len(size)
    stride, before, _, dilation, *_ = parts(numbers, n)
    after = []
    for i in range(n):
        reached = (size[i] - 1) * stride[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1 - before[i]
        have = input.shape[2 + i]
        if reached < have:
            input = input.narrow(2 + i, 0, reached)
        after.append(max(0, reached - have))
    return conv(input, weight, None, (*numbers[:6], *three(after, 0), *numbers[9:]))


class WeightGradient(torch.autograd.Function):
    """grad, input, weight (its shape), geometry: the gradients of ``conv``'s weight and bias."""

    @staticmethod
    def forward(ctx, grad, input, weight, *numbers):
        ctx.save_for_backward(grad, input)
        ctx.numbers = numbers
        return _run_weight(grad, input, weight, numbers, True, True)

    @staticmethod
    def backward(ctx, d_weight, d_bias):
        grad, input = ctx.saved_tensors
        need = ctx.needs_input_grad
        d_grad = d_input = None
        if need[0]:
            d_grad = conv(input, d_weight, d_bias, ctx.numbers)
        if need[1]:
            d_input = input_gradient(grad, d_weight, ctx.numbers, input.shape)
        return d_grad, d_input, None, *((None,) * _COUNT)

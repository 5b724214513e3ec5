"""The norms over the last dimensions in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, empty_if, needs_torch


def _functions(name):
    """The kernels of a norm, forward and backward; declares the shapes of the gradients."""

    @result_of(f"{name}_backward")
    def _(grad, *rest):  # what gets gradients; eps and dims; which are wanted
        count = (len(rest) - 2) // 2
        tensors, needs = rest[-2 * count - 2 : -count - 2], rest[-count:]
        return tuple(empty_if(need, t, grad) for need, t in zip(needs, tensors, strict=True))

    return function(name), function(f"{name}_backward")


def _again(ctx, plain, grad, need):
    """Gradients of input (or the sum), weight and bias by torch's op."""
    return again(lambda x, *w: plain(x, x.shape[-ctx.dims :], *w, ctx.eps), ctx.saved_tensors, grad, need)


def _wanted(found, need):
    return [gradient if n else None for gradient, n in zip(found, need, strict=True)]


def norm(name, plain):
    """The autograd.Function of op ``name``: input, weight (and bias), eps, dims, size.

    ``plain`` is torch's op: input, shape, weight (and bias), eps.
    """
    forward_of, backward_of = _functions(name)
    result_of(name)(lambda input, *rest: input.new_empty(input.shape))

    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input, *rest):
            *parameters, ctx.eps, ctx.dims, _ = rest
            ctx.save_for_backward(input, *parameters)
            return forward_of(input, *rest)

        @staticmethod
        def backward(ctx, grad):
            tensors, need = ctx.saved_tensors, ctx.needs_input_grad[:-3]
            if needs_torch(grad, *tensors):
                return *_again(ctx, plain, grad, need), None, None, None
            found = backward_of(grad, *tensors, ctx.eps, ctx.dims, *need)
            return *_wanted(found, need), None, None, None

    return Norm


def add_norm(name, plain):
    """The same of the sum of input and residual, which is the second result."""
    forward_of, backward_of = _functions(name)
    result_of(name)(lambda input, *rest: (input.new_empty(input.shape), input.new_empty(input.shape)))

    class AddNorm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input, residual, *rest):
            *parameters, ctx.eps, ctx.dims, _ = rest
            y, s = forward_of(input, residual, *rest)
            ctx.save_for_backward(s, *parameters)
            ctx.set_materialize_grads(False)
            return y, s

        @staticmethod
        def backward(ctx, grad, grad_sum):
            tensors = ctx.saved_tensors
            need_input, need_residual, *need = ctx.needs_input_grad[:-3]
            need = (need_input or need_residual, *need)
            if grad is None:
                d_sum, d = grad_sum, [None] * (len(tensors) - 1)
            elif needs_torch(grad, grad_sum, *tensors):
                d_sum, *d = _again(ctx, plain, grad, need)
                if d_sum is not None and grad_sum is not None:
                    d_sum = d_sum + grad_sum
            else:
                found = backward_of(grad, grad_sum, *tensors, ctx.eps, ctx.dims, *need)
                d_sum, *d = _wanted(found, need)
            return d_sum if need_input else None, d_sum if need_residual else None, *d, None, None, None

    return AddNorm


def composed(plain):
    """``add_norm`` in torch's own ops."""

    def run(input, residual, *rest):
        *parameters, eps, dims = rest
        s = input + residual
        return plain(s, s.shape[s.dim() - dims :], *parameters, eps), s

    return run

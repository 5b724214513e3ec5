"""Elementwise ops in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import answer, function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again


def like(input):
    """An empty tensor with the strides of ``input`` where its memory is dense, else contiguous."""
    if torch._prims_common.is_non_overlapping_and_dense_or_false(input):
        return torch.empty_like(input)
    return torch.empty_like(input, memory_format=torch.contiguous_format)


def activation(name, plain):
    """The autograd.Function of op ``name``, y = f(input, *options); ``plain`` is f in torch's ops."""
    forward_of, backward_of = function(name), function(f"{name}_backward")
    result_of(name)(lambda input, *options: like(input))
    result_of(f"{name}_backward")(lambda grad, input, *options: like(input))

    class Activation(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input, *options):
            ctx.save_for_backward(input)
            ctx.options = options
            return forward_of(input, *options)

        @staticmethod
        def backward(ctx, grad):
            (input,) = ctx.saved_tensors
            rest = (None,) * len(ctx.options)
            if answer(grad, input) != 1:
                return *again(lambda x: plain(x, *ctx.options), (input,), grad, (True,)), *rest
            return backward_of(grad, input, *ctx.options), *rest

    return Activation


def gated(name, plain):
    """The same of y = f(gate, *options) up; ``up`` None: gate holds both, as halves."""
    forward_of, backward_of = function(name), function(f"{name}_backward")

    def halves_or_both(gate, up):
        return gate.chunk(2, -1) if up is None else (gate, up)

    @result_of(name)
    def _(gate, up, *options):
        return like(halves_or_both(gate, up)[0])

    @result_of(f"{name}_backward")
    def _(grad, gate, up, *rest):
        none = gate.new_empty(0, dtype=torch.float32)
        if up is None:
            return torch.empty_like(gate, memory_format=torch.contiguous_format), none
        return tuple(like(gate) if need else none for need in rest[-2:])

    class Gated(torch.autograd.Function):
        @staticmethod
        def forward(ctx, gate, up, *options):
            ctx.save_for_backward(gate, up)
            ctx.options = options
            return forward_of(gate, up, *options)

        @staticmethod
        def backward(ctx, grad):
            tensors, need = ctx.saved_tensors, ctx.needs_input_grad[:2]
            rest = (None,) * len(ctx.options)
            if answer(grad, *tensors) != 1:

                def composed(gate, up):
                    gate, up = halves_or_both(gate, up)
                    return plain(gate, *ctx.options) * up

                return *again(composed, tensors, grad, need), *rest
            found = backward_of(grad, *tensors, *ctx.options, *need)
            return *(g if n else None for g, n in zip(found, need, strict=True)), *rest

    return Gated

"""embedding in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import answer, function
from honed.ops._library import result_of

_forward, _backward = function("embedding"), function("embedding_backward")


@result_of("embedding")
def _(weight, input):
    return weight.new_empty((*input.shape, weight.shape[1]))


@result_of("embedding_backward")
def _(grad, input, rows, padding_idx, scale_grad_by_freq):
    return grad.new_empty((rows, grad.shape[-1]))


class Embedding(torch.autograd.Function):
    """embedding with the gradient of its table."""

    @staticmethod
    def forward(ctx, weight, input, padding_idx, scale_grad_by_freq):
        ctx.save_for_backward(input)
        ctx.options = weight.shape[0], padding_idx, scale_grad_by_freq
        return _forward(weight, input)

    @staticmethod
    def backward(ctx, grad):
        (input,) = ctx.saved_tensors
        backward = _backward
        if answer(grad) != 1:
            backward = torch.ops.aten.embedding_dense_backward
        return backward(grad, input, *ctx.options), None, None, None

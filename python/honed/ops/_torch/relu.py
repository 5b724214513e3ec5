"""relu in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import answer, function
from honed.ops._library import result_of
from honed.ops._torch._pointwise import like

_forward, _backward = function("relu"), function("relu_backward")

result_of("relu")(like)
result_of("relu_backward")(lambda grad, result: like(result))


class Relu(torch.autograd.Function):
    """relu with a gradient, which needs the result only."""

    @staticmethod
    def forward(ctx, input):
        result = _forward(input)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx, grad):
        (result,) = ctx.saved_tensors
        if answer(grad, result) != 1:
            return torch.ops.aten.threshold_backward(grad, result, 0)
        return _backward(grad, result)

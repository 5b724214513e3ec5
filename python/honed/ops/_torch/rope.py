"""rope in torch: shapes, gradients."""

import torch

from honed.ops._dispatch import answer, function
from honed.ops._library import result_of

_forward = function("rope")


@result_of("rope")
def _(x, cos, sin, positions, interleaved, inverse):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


class Rope(torch.autograd.Function):
    """rope with gradients of every order: that of a rotation is the inverse one."""

    @staticmethod
    def forward(ctx, x, cos, sin, positions, interleaved, inverse):
        ctx.save_for_backward(cos, sin, positions)
        ctx.options = interleaved, inverse
        return _forward(x, cos, sin, positions, interleaved, inverse)

    @staticmethod
    def backward(ctx, grad):
        cos, sin, positions = ctx.saved_tensors
        interleaved, inverse = ctx.options
        how = answer(grad)
        if how == 0:
            turned = composed(grad, cos, sin if inverse else -sin, positions, interleaved)
        else:
            run = _forward if how == 1 else Rope.apply
            turned = run(grad, cos, sin, positions, interleaved, not inverse)
        return turned, None, None, None, None, None


def composed(x, cos, sin, positions, interleaved):
    """The same in torch's own ops: other devices, gradients of the tables."""
    cos, sin = (t[: x.shape[1]] if positions is None else t[positions] for t in (cos, sin))
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    half = cos.shape[-1]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned[..., :half], turned[..., half:]
    first, second = a * cos - b * sin, b * cos + a * sin
    turned = torch.stack((first, second), -1).flatten(-2) if interleaved else torch.cat((first, second), -1)
    return torch.cat((turned.to(x.dtype), rest), -1)

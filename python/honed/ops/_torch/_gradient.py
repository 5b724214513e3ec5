"""What the gradients of ops share."""

from __future__ import annotations

import torch

from honed._lib import _core
from honed.ops._dispatch import tracing


def again(function, inputs, grad, need):
    """Gradients of torch's own op, which have gradients where a backward runs with ``create_graph=True``.

    Args:
        function: of ``inputs``, in differentiable torch ops; a tensor or several.
        inputs: as they came out of ``ctx.saved_tensors``.
        grad: that of the result, or a tuple.
        need: which inputs want one.

    Returns:
        A list as long as ``inputs``, ``None`` where none is wanted.
    """
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Of aliases: a tensor that is given twice gets a gradient for each place.
        inputs = [i if i is None else i.view_as(i) for i in inputs]
        out = function(*inputs)
    wanted = [i for i, need in zip(inputs, need, strict=True) if need and i is not None]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=graph, allow_unused=True))
    return [next(found) if n and i is not None else None for i, n in zip(inputs, need, strict=True)]


def needs_torch(*tensors) -> bool:
    """Whether a gradient of these is torch's to make, by :func:`again`.

    It needs gradients itself (``create_graph=True``), or a kernel cannot read the memory of what it is made
    of: batched gradients, negated views (which the imaginary part of a conjugate gives).
    """
    if tracing():
        return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return _core.reads(*tensors) != 1


def empty_if(wanted, like, of):
    """The shape of a gradient: like its input, or what stands for none (of ``of``'s kind)."""
    if wanted and like is not None:
        return like.new_empty(like.shape)
    return of.new_empty(0, dtype=torch.float32)

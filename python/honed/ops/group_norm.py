"""Group normalisation."""

from honed._lib import torch
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling

if torch is not None:
    from honed.ops._torch.group_norm import GroupNorm

_run, _direct = function("group_norm"), direct("group_norm")


def _channels_last(x):
    return not x.is_contiguous() and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """``y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias``, mean and var over a group of channels.

    Args:
        input: ``(B, C, ...)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
            One in torch.channels_last goes to torch's own op, which keeps the layout.
        num_groups: into which the channels are split; a divisor of C.
        weight: ``(C,)`` or ``None``.
        bias: ``(C,)``, of weight's type, or ``None``.
        eps: added to the (biased) variance.

    Returns:
        A contiguous tensor like ``input``. Sums are float32, float64 for float64; the variance is summed
        around the mean. Gradients reach input, weight and bias as in :func:`honed.ops.layer_norm`, weight and
        bias being one number a channel.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.group_norm.html

    >>> import numpy as np
    >>> group_norm(np.array([[1.0, 3.0, 5.0, 5.0]], dtype=np.float32), 2, eps=1.0).round(4).tolist()
    [[-0.7071999907493591, 0.7071999907493591, 0.0, 0.0]]
    """
    if torch is not None and isinstance(input, torch.Tensor) and _channels_last(input):
        own = torch.nn.functional.group_norm
        return fall_back("group_norm", own, input, num_groups, weight, bias, eps)
    if not is_compiling():
        out = _direct(input, num_groups, weight, bias, eps)
        if out is not None:
            return out
    how = answer(input, weight, bias)
    if not how:
        return fall_back("group_norm", torch.nn.functional.group_norm, input, num_groups, weight, bias, eps)
    if how == 1:
        return _run(input, num_groups, weight, bias, eps)
    return GroupNorm.apply(input, num_groups, weight, bias, eps)

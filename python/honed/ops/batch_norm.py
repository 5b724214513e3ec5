"""Batch normalisation, with the sum and the activation that follow it."""

from honed._lib import torch
from honed.ops._dispatch import answer, direct, fall_back, function, is_compiling

if torch is not None:
    from honed.ops._torch.batch_norm import BatchNorm, BatchNormTraining, composed

_run, _direct = function("batch_norm"), direct("batch_norm")
_train, _direct_train = function("batch_norm_training"), direct("batch_norm_training")
_ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 2}


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    *,
    activation="none",
    residual=None,
):
    """``y = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)``, mean and var one a channel.

    Args:
        input: ``(B, C, ...)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
        running_mean: ``(C,)``, the mean where not ``training``, else updated in place; then it may be
            ``None``.
        running_var: likewise, both or neither.
        weight: ``(C,)`` or ``None``; vectors may be float32 beside a narrower input.
        bias: ``(C,)`` or ``None``.
        training: mean and (biased) var are those of input over all but the channels.
        momentum: ``running = (1 - momentum) running + momentum new``, where var is the unbiased one.
        eps: added to the variance.
        activation: ``"none"``, ``"relu"`` or ``"relu6"``.
        residual: like input, added before the activation, or ``None``.

    Returns:
        A tensor like ``input``, in its layout (contiguous or with the channels last, as torch.channels_last).
        Sums are float32, float64 for float64; the variance is summed around the mean. Gradients reach input,
        weight, bias and residual; with g that of y where the activation passes it (0 < y, and y < 6 of
        relu6), dev the root and n = (x - mean) / dev they are ``(g - mean(g) - n mean(g n)) weight / dev``
        (``g weight / dev`` where not ``training``), the sums of ``g n`` and of ``g`` over a channel, and
        ``g``.

    Raises:
        ValueError: shapes that do not fit, a running mean or variance that is missing, one value a channel
            when training. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.batch_norm.html and Ioffe and
    Szegedy, https://arxiv.org/abs/1502.03167

    >>> import numpy as np
    >>> x = np.array([[1.0, -2.0], [3.0, 2.0]], dtype=np.float32)
    >>> mean, var = np.zeros(2, np.float32), np.ones(2, np.float32)
    >>> batch_norm(x, mean, var, training=True, activation="relu").round(3).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    >>> mean.round(3).tolist(), var.round(3).tolist()
    ([0.20000000298023224, 0.0], [1.100000023841858, 1.7000000476837158])
    """
    act = _ACTIVATIONS.get(activation)
    if act is None:
        raise ValueError(f"batch_norm: activation is {activation!r}, expected 'none', 'relu' or 'relu6'")
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_norm: got one of running_mean and running_var, expected both or neither")
    if training:
        return _training(input, running_mean, running_var, weight, bias, momentum, eps, activation, residual)
    if eps < 0.0:
        raise ValueError(f"batch_norm: eps is {eps}, expected 0 or more")
    if running_mean is None:
        raise ValueError("batch_norm: running_mean is None, expected a tensor where training is False")
    rest = (running_mean, running_var, weight, bias, residual)
    if not is_compiling():
        out = _direct(input, *rest, eps, act)
        if out is not None:
            return out
    how = answer(input, *rest)
    if not how:
        return fall_back("batch_norm", composed, input, *rest, False, 0.0, eps, activation)
    if how == 1:
        return _run(input, *rest, eps, act)
    return BatchNorm.apply(input, *rest, eps, activation)


def _training(input, running_mean, running_var, weight, bias, momentum, eps, activation, residual):
    if eps <= 0.0:
        raise ValueError(f"batch_norm: eps is {eps}, expected more than 0 when training")
    values = input.shape[0]
    for size in input.shape[2:]:
        values *= size
    if values == 1:
        raise ValueError(
            f"batch_norm: input has shape {tuple(input.shape)}, "
            "expected more than 1 value a channel when training"
        )
    rest = (weight, bias, residual)
    how = answer(input, running_mean, running_var, *rest) if values and input.shape[1] else 0
    if not how and torch is not None and isinstance(input, torch.Tensor):
        rest = (running_mean, running_var, *rest, True, momentum, eps, activation)
        return fall_back("batch_norm", composed, input, *rest)
    if how == 2:
        out, mean, var = BatchNormTraining.apply(input, *rest, eps, activation)
    elif how == 1:
        out, mean, var = _train(input, *rest, eps, _ACTIVATIONS[activation])
    else:
        return input.copy()
    if running_mean is not None:
        _update(running_mean, mean, momentum, "running_mean")
        _update(running_var, var, momentum, "running_var")
    return out


def _update(running, new, momentum, what):
    if running.shape != new.shape:
        raise ValueError(f"batch_norm: {what} has shape {tuple(running.shape)}, expected {tuple(new.shape)}")
    if hasattr(running, "lerp_"):
        if running.dtype == new.dtype:
            running.lerp_(new, momentum)
        else:
            running.copy_(running.to(new.dtype).lerp_(new, momentum))
    else:
        running += momentum * (new - running)

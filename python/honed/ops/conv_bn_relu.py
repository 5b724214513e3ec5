"""A convolution, batch norm, a sum and an activation: the block that image models are made of."""

from honed._lib import torch
from honed.ops._conv import finished
from honed.ops.conv import conv1d, conv2d, conv3d

_CONVS = {3: conv1d, 4: conv2d, 5: conv3d}


def conv_bn_relu(
    input,
    weight,
    bias,
    running_mean,
    running_var,
    bn_weight=None,
    bn_bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    training=False,
    momentum=0.1,
    eps=1e-5,
    activation="relu",
    residual=None,
    padding_mode="zeros",
    exact=False,
):
    """``y = activation(batch_norm(conv(x, weight) + bias) + residual)``; torch tensors.

    Args:
        input, weight, bias, stride, padding, dilation, groups, padding_mode, exact: those of :func:`conv2d`;
            the weight's dimensions say which convolution it is. ``bias`` may be ``None``.
        running_mean, running_var, bn_weight, bn_bias, training, momentum, eps: those of :func:`batch_norm`.
        activation: ``none``, ``relu``, ``relu6``, ``gelu``, ``gelu_tanh`` or ``silu``.
        residual: like the output; ``None``: no sum.

    Without ``training`` the batch norm is folded into the weight: ``w' = w s`` and ``b' = (b - mean) s +
    bn_bias``, with ``s = bn_weight / sqrt(var + eps)`` a channel, and everything is one convolution. It is
    folded at each call; :func:`honed.hone` keeps the folded weight. In training the convolution comes first,
    then batch norm, sum and activation in one pass. Gradients reach every input.

    Source: Jacob et al., https://arxiv.org/abs/1712.05877, 3.2 (batch normalisation folding)

    >>> x, w = torch.tensor([[[[1.0, -3.0]]]]), torch.tensor([[[[2.0]]]])
    >>> conv_bn_relu(x, w, None, torch.tensor([1.0]), torch.tensor([4.0]), eps=0.0)
    tensor([[[[0.5000, 0.0000]]]])
    """
    if weight.dim() not in _CONVS:
        raise ValueError(f"conv_bn_relu: weight has shape {tuple(weight.shape)}, expected 3 to 5 dimensions")
    conv = _CONVS[weight.dim()]
    options = {"padding_mode": padding_mode, "exact": exact}
    if not training and running_mean is not None and running_var is not None:
        weight, bias = _folded(weight, bias, running_mean, running_var, bn_weight, bn_bias, eps)
        options |= {"activation": activation, "residual": residual}
        return conv(input, weight, bias, stride, padding, dilation, groups, **options)
    y = conv(input, weight, bias, stride, padding, dilation, groups, **options)
    y = torch.nn.functional.batch_norm(y, running_mean, running_var, bn_weight, bn_bias, True, momentum, eps)
    return finished(y, activation, residual)


def _folded(weight, bias, mean, var, scale, shift, eps):
    """In float32 at least, by torch's differentiable ops."""
    dtype = weight.dtype
    wide = torch.promote_types(dtype, torch.float32)
    factor = (var.to(wide) + eps).rsqrt()
    if scale is not None:
        factor = factor * scale.to(wide)
    offset = (-mean if bias is None else bias.to(wide) - mean) * factor
    if shift is not None:
        offset = offset + shift
    weight = weight * factor.view(-1, *(1,) * (weight.dim() - 1))
    return weight.to(dtype), offset.to(dtype)

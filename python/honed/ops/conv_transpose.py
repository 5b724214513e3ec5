"""Transposed convolutions over one, two and three dimensions."""

from honed._lib import torch
from honed.ops._conv import finished
from honed.ops._dispatch import fall_back


def _conv_transpose(
    n, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual
):
    op = f"conv_transpose{n}d"
    own = getattr(torch.nn.functional, op)

    def plain(x, w, b):
        y = own(x, w, b, stride, padding, output_padding, groups, dilation)
        return finished(y, activation, residual)

    return fall_back(op, plain, input, weight, bias)


def conv_transpose1d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    activation="none",
    residual=None,
):
    """:func:`conv_transpose2d` over one dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose1d.html
    """
    return _conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual
    )


def conv_transpose2d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    activation="none",
    residual=None,
):
    """The transposed convolution: what :func:`conv2d` maps ``y`` to, mapped back.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose2d.html
    """
    return _conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual
    )


def conv_transpose3d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    activation="none",
    residual=None,
):
    """:func:`conv_transpose2d` over three dimensions.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose3d.html
    """
    return _conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual
    )

"""torch.nn's convolutions on honed's kernels."""

from __future__ import annotations

import torch

from honed.nn._packed_conv import Options, PackedConv, renew
from honed.ops import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from honed.ops._dispatch import is_compiling, multiplies


class _Conv:
    """What the convolutions share: the weight, packed without gradients as :class:`honed.nn.Linear` does."""

    op = "conv"
    storage: str | None = None
    exact: bool = False
    _packed: PackedConv | None = None

    def forward(self, input):
        if not isinstance(input, torch.Tensor):
            return super().forward(input)  # what torch.fx traces with
        parameters = self._parameters
        if not is_compiling() and "weight" in parameters and "bias" in parameters:
            weight, bias = parameters["weight"], parameters["bias"]
            if multiplies(weight, bias, input) == 1 and weight.dtype != torch.float64:
                packed = self._packed = renew(
                    self._packed, (weight, bias), Options(self.storage, self.groups)
                )
                return self._run(input, packed.weight, packed.bias)
        return self._run(input, self.weight, self.bias)

    def _run(self, input, weight, bias, activation="none", residual=None):
        return self._conv(
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            activation=activation,
            residual=residual,
            exact=self.exact,
        )


class Conv1d(_Conv, torch.nn.Conv1d):
    """:class:`Conv2d` over one dimension; torch's arguments. Runs :func:`honed.ops.conv1d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv1d.html

    >>> Conv1d(3, 4, 3)(torch.ones(2, 3, 8)).shape
    torch.Size([2, 4, 6])
    """

    _conv = staticmethod(conv1d)


class Conv2d(_Conv, torch.nn.Conv2d):
    """``y[o, p] = sum_{c,k} w[o, c, k] x[c, p stride + k dilation - padding] + b[o]``; torch's arguments.

    Runs :func:`honed.ops.conv2d`. Without gradients the weight is packed once and packed anew when it or the
    bias changed; see :class:`honed.nn.Linear`. ``storage`` says how: ``None`` (every value exactly) or
    ``"int8"`` (a scale an output channel); others mean ``None``. ``exact`` is that of the op. The parameters
    stay what they are, and training uses them.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html

    >>> Conv2d(3, 4, 3, padding=1)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    _conv = staticmethod(conv2d)


class Conv3d(_Conv, torch.nn.Conv3d):
    """:class:`Conv2d` over three dimensions; torch's arguments. Runs :func:`honed.ops.conv3d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv3d.html

    >>> Conv3d(3, 4, 3)(torch.ones(2, 3, 8, 8, 8)).shape
    torch.Size([2, 4, 6, 6, 6])
    """

    _conv = staticmethod(conv3d)


class _ConvTranspose:
    """What the transposed convolutions share."""

    op = "conv_transpose"
    storage = None

    def forward(self, input, output_size=None):
        if not isinstance(input, torch.Tensor):
            return super().forward(input, output_size)  # what torch.fx traces with
        more = self.output_padding
        if output_size is not None:
            sizes = self.stride, self.padding, self.kernel_size, len(self.stride), self.dilation
            more = self._output_padding(input, output_size, *sizes)
        return self._run(input, self.weight, self.bias, output_padding=tuple(more))

    def _run(self, input, weight, bias, activation="none", residual=None, output_padding=None):
        return self._conv(
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            self.output_padding if output_padding is None else output_padding,
            self.groups,
            self.dilation,
            activation=activation,
            residual=residual,
        )


class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    """:class:`ConvTranspose2d` over one dimension; torch's arguments.

    Runs :func:`honed.ops.conv_transpose1d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose1d.html

    >>> ConvTranspose1d(3, 4, 2, stride=2)(torch.ones(2, 3, 8)).shape
    torch.Size([2, 4, 16])
    """

    _conv = staticmethod(conv_transpose1d)


class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    """The gradient of a convolution with respect to its input, as a layer; torch's arguments.

    Runs :func:`honed.ops.conv_transpose2d`, forward and backward.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose2d.html

    >>> ConvTranspose2d(3, 4, 2, stride=2)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 4, 16, 16])
    """

    _conv = staticmethod(conv_transpose2d)


class ConvTranspose3d(_ConvTranspose, torch.nn.ConvTranspose3d):
    """:class:`ConvTranspose2d` over three dimensions; torch's arguments.

    Runs :func:`honed.ops.conv_transpose3d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose3d.html

    >>> ConvTranspose3d(3, 4, 2, stride=2)(torch.ones(2, 3, 4, 4, 4)).shape
    torch.Size([2, 4, 8, 8, 8])
    """

    _conv = staticmethod(conv_transpose3d)

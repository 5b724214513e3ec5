"""A convolution, product or batch norm and the steps after it, as one call."""

from __future__ import annotations

import torch

from honed import nn
from honed._lib import _core
from honed.nn._packed_conv import Options, renew
from honed.ops import batch_norm, linear
from honed.ops._activations import ACTIVATIONS
from honed.ops._conv import numbers
from honed.ops._dispatch import direct

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
HEADS = frozenset((*CONVS, *TRANSPOSED, *NORMS, nn.Linear))

_run_packed, _run_pair = direct("conv_packed"), direct("conv_depthwise")
_run_linear = direct("linear_packed")


def packed_call(head, weight, activation):
    """What the kernel takes after input, packed weight and residual, as honed.ops gives it."""
    op = f"conv{weight.dim() - 2}d"
    geometry = head.stride, head.padding, head.dilation, head.groups, head.padding_mode
    _, sizes, codes = numbers(op, weight.dim() - 2, weight.shape[2:], *geometry, activation)
    return *sizes, *codes, head.exact


class Fused:
    """The steps in one call where that gives their values, else one after the other.

    Looks at each call at what may have changed since: hooks, other forwards, modes, parameters, statistics.
    """

    __name__ = "fused"

    def __init__(self, head, norm, steps, activation):
        self.head, self.norm = head, norm
        self.steps = steps  # what follows the head: functions of the value, and of the residual, if they add
        self.activation = activation
        self.packed = None
        self._settings = self._options = None
        self.call = None  # what the kernel takes after the packed weight and the residual
        self._weights = head._parameters
        parts = [head, *(step for step, _ in steps if isinstance(step, torch.nn.Module))]
        self.parts = parts
        self._attributes = [part.__dict__ for part in parts]
        self._classes = [type(part) for part in parts]
        self._hooks = [hooks for part in parts for hooks in (part._forward_hooks, part._forward_pre_hooks)]
        # Dropouts and the like, which do nothing in eval mode.
        self._modes = [part for part in parts if part is not head or type(head) in NORMS]
        kind = type(head)
        if kind in NORMS:
            self._run = self._normed
        elif kind is nn.Linear:
            self._run = self._linear
        else:
            self._run = self._conv
            self._transposed = kind in TRANSPOSED

    def __call__(self, x, residual=None):
        if self.is_plain():
            try:
                y = self._run(x, residual)
            except (TypeError, ValueError):  # tensors that the steps may take, one by one
                y = None
            if y is not None:
                return y
        return self.apart(x, residual)

    def is_plain(self) -> bool:
        """Whether calling the parts is running their classes' forwards in eval mode and nothing else."""
        if any(self._hooks) or [*map(type, self.parts)] != self._classes:
            return False
        for attributes in self._attributes:
            if "forward" in attributes:
                return False
        return all(not part.training for part in self._modes)

    def apart(self, x, residual):
        """One step after the other."""
        y = self.head(x)
        for step, adds in self.steps:
            y = step(y, residual) if adds else step(y)
        return y

    def _conv(self, x, residual):
        head = self.head
        if self.norm is None and self._transposed:
            weights = self._weights
            return head._run(x, weights.get("weight"), weights.get("bias"), self.activation, residual)
        packed = self.ready(x)
        if packed is None:
            return None
        if self.call is not None and packed.product is not None:
            y = _run_packed(x, packed.product, residual, *self.call)
            if y is not None:
                return y
        return head._run(x, packed.weight, packed.bias, self.activation, residual)

    def once(self, tape, x, residual=None):
        """The steps as one call of the kernel, for a graph; ``None`` where that is not to be had."""
        head = self.head
        if self._run == self._linear:
            packed = head.packed_for(x) if self.norm is None else self._packed_rows(x)
            if packed is None or packed.product is None:
                return None
            return _run_linear(x, packed.product, residual, ACTIVATIONS.index(self.activation))
        if self._run == self._conv and not (self.norm is None and self._transposed):
            packed = self.ready(x)
            if packed is None:
                return None
            if packed.product is None:
                for tensor in (packed.weight, packed.bias):
                    if tensor is not None:
                        tape.constant(tensor)
        return self._run(x, residual)

    def ready(self, x):
        """The packed weight of a convolution for this input as it is now, or ``None``."""
        head, get = self.head, self._weights.get
        weight = get("weight")
        if weight is None or x.dtype is not weight.dtype or "bias" not in self._weights:
            return None
        tensors, eps = (weight, get("bias")), 0.0
        if x.dim() != weight.dim():
            return None
        if self.norm is not None:
            tensors += self._statistics()
            if tensors[2] is None or tensors[3] is None:
                return None
            eps = self.norm.eps
        settings = (head.storage, head.groups, eps, head.stride, head.padding, head.dilation)
        settings += (head.padding_mode, getattr(head, "exact", False), weight.shape)
        if settings != self._settings:
            self._settings = settings
            self._options = Options(head.storage, head.groups, self._transposed, eps)
            self.call = None if self._transposed else packed_call(head, weight, self.activation)
        return self._renewed(tensors, self._options)

    def _linear(self, x, residual):
        if self.norm is None:
            return self.head.fused(x, self.activation, residual)
        packed = self._packed_rows(x)
        if packed is None:
            return None
        return linear(x, packed.weight, packed.bias, activation=self.activation, residual=residual)

    def _packed_rows(self, x):
        """The packed weight of a product with its norm, or ``None``."""
        weight, bias = self._weights.get("weight"), self._weights.get("bias")
        tensors = weight, bias, *self._statistics()
        if weight is None or tensors[2] is None or tensors[3] is None or x.dim() != 2:
            return None
        if x.dtype is not weight.dtype or "bias" not in self._weights:
            return None
        return self._renewed(tensors, Options(self.head.storage, 1, False, self.norm.eps))

    def _normed(self, x, residual):
        mean, var, scale, shift = tensors = self._statistics(self.head)
        if mean is None or var is None or _core.reads(*tensors) != 1:
            return None
        self.head._check_input_dim(x)
        return batch_norm(
            x,
            mean,
            var,
            scale,
            shift,
            False,
            0.0,
            self.head.eps,
            activation=self.activation,
            residual=residual,
        )

    def _statistics(self, norm=None):
        norm = norm or self.norm
        own, learned = norm._buffers.get, norm._parameters.get
        return own("running_mean"), own("running_var"), learned("weight"), learned("bias")

    def _renewed(self, tensors, options):
        packed = self.packed
        if packed is None or packed.options != options or packed.mark != _core.fingerprint(*tensors):
            if _core.reads(*tensors) != 1:  # of functorch, on another device
                return None
            packed = self.packed = renew(None, tensors, options)
        return packed if packed.fits else None


class Pair:
    """A 1x1 convolution and the depthwise one of what it gives, with the steps after each: one call where the
    channels lie side by side, so that no image between them goes through memory; else the two calls."""

    __name__ = "pair"

    def __init__(self, first, second):
        self.first, self.second = first, second

    def __call__(self, x, residual=None):
        y = self._joined(x, residual)
        return self.second(self.first(x), residual) if y is None else y

    def _joined(self, x, residual):
        first, second = self.first, self.second
        if x.dtype is not torch.float32 or x.dim() != 4 or x.stride(1) != 1 or x.is_contiguous():
            return None
        # Whether the image between them would not stay in the second caches, 4 MB. One that does is quicker
        # in two calls (144 channels of 56 x 56: 371 instead of 457 us), whose tiles go over all channels.
        if x.numel() < (1 << 20) // first.head.out_channels * x.shape[1]:
            return None
        if not (first.is_plain() and second.is_plain()):
            return None
        one, two = first.ready(x), second.ready(x)
        if one is None or two is None or not self._fits(one, two):
            return None
        try:
            return _run_pair(x, one.product, first.call[13], two.product, residual, *second.call[:14])
        except (TypeError, ValueError):  # tensors that the steps may take, one by one
            return None

    def _fits(self, one, two):
        """Whether the geometry is still that of a 1x1 and a depthwise convolution."""
        return (
            one.product is not None
            and two.product is not None
            and first_takes_pixels(self.first)
            and self.second.head.groups == self.second.head.out_channels == self.first.head.out_channels
            and self.second.head.in_channels == self.second.head.groups
            and self.second.call[12] == 0
        )


def first_takes_pixels(fused) -> bool:
    """Whether a convolution multiplies every pixel by itself."""
    head = fused.head
    return (
        head.kernel_size == (1, 1)
        and head.stride == (1, 1)
        and head.padding in ((0, 0), "valid")
        and head.groups == 1
        and head.storage != "int8"
    )

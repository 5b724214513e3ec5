"""Packed weights of convolutions, with the batch norm after them folded in; renewed when any part changed."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch

from honed._lib import _core
from honed.nn._packed import KINDS
from honed.ops import quantize_weight

_shared: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


class Options(NamedTuple):
    """How a weight is packed, besides its values."""

    storage: str | None
    groups: int
    transposed: bool = False
    eps: float = 0.0  # of the batch norm


class PackedConv:
    """``weight`` and ``bias`` for honed.ops' convolutions: of tensors with the fingerprint ``mark``.

    Made of ``(weight, bias)``, or of ``(weight, bias, running_mean, running_var, norm's weight, norm's
    bias)``, which are folded. Where there is no packed form, these are plain tensors. ``fits``: the
    folded values are finite. Copies and pickles are ``None``: a copied layer packs its own weight.
    """

    __slots__ = ("__weakref__", "bias", "fits", "mark", "options", "product", "tensors", "weight")

    def __init__(self, tensors, options, mark):
        self.tensors = tensors  # kept, so that nothing else gets their identity
        self.options, self.mark = options, mark
        dtype = tensors[0].dtype
        weight, bias = (None if t is None else t.detach() for t in tensors[:2])
        if len(tensors) > 2:
            weight, bias = folded(weight, bias, *tensors[2:], options)
        # A folded value may be beyond float16's largest where what the steps give one by one is not.
        half = dtype == torch.float16 and len(tensors) > 2
        self.fits = not half or all(t.to(dtype).isfinite().all().item() for t in (weight, bias))
        self.product = None  # what report() counts
        if dtype != torch.float64 and weight.dim() == 2:
            self.product = quantize_weight(weight, KINDS[options.storage], bias=bias)
        elif dtype != torch.float64 and not options.transposed:
            kind = "int8" if options.storage == "int8" else "exact"
            bias = None if bias is None else bias.to(dtype)
            self.product = quantize_weight(weight.to(dtype), kind, bias=bias, groups=options.groups)
        if self.product is not None:
            self.weight, self.bias = self.product, None
        else:
            self.weight, self.bias = weight.to(dtype), None if bias is None else bias.to(dtype)

    def __reduce__(self):
        return _nothing, ()


def _nothing():
    return None


def folded(weight, bias, mean, var, scale, shift, options):
    """Weight and bias of one convolution that does what a convolution and its batch norm do; float32 unless
    the weight is float64."""
    with torch.no_grad():
        factor = (var.double() + options.eps).rsqrt()
        if scale is not None:
            factor = factor * scale.double()
        offset = -mean.double() if bias is None else bias.double() - mean.double()
        offset = offset * factor
        if shift is not None:
            offset = offset + shift.double()
        wide = weight.double()
        if options.transposed:  # (inputs, outputs of a group, ...): a group's inputs follow each other
            groups = wide.unflatten(0, (options.groups, -1))
            factors = factor.view(options.groups, 1, -1, *(1,) * (weight.dim() - 2))
            wide = (groups * factors).flatten(0, 1)
        else:
            wide = wide * factor.view(-1, *(1,) * (weight.dim() - 1))
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return wide.to(dtype), offset.to(dtype)


def renew(held: PackedConv | None, tensors, options: Options) -> PackedConv:
    """What a layer holds, packed anew where it is no longer that of these tensors."""
    mark = _core.fingerprint(*tensors)
    if held is not None and held.mark == mark and held.options == options:
        return held
    found = _shared.get((mark, options))
    if found is None:
        found = _shared[mark, options] = PackedConv(tensors, options, mark)
    return found

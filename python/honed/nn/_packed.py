"""Packed copies of weights: one for all layers that share a weight, renewed when it changed."""

from __future__ import annotations

import weakref

import torch

from honed._lib import _core
from honed.ops import quantize_weight

# How a layer stores its weight -> the kind of quantize_weight.
KINDS = {None: "exact", "bf16": "bf16", "fp16": "f16", "int8": "int8", "int4": "int4"}
_shared: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


class Packed:
    """``product`` for :func:`honed.ops.linear`, or ``None`` for a float64 weight, which has no packed form.

    It is that of the tensors with the fingerprint ``mark``. Copies and pickles are ``None``: a copied layer
    packs its own weight.
    """

    __slots__ = ("__weakref__", "mark", "product", "storage", "tensors")

    def __init__(self, weight, bias, storage, mark):
        if storage not in KINDS:
            known = ", ".join(repr(name) for name in KINDS)
            raise ValueError(f"Linear: storage is {storage!r}, expected {known}")
        self.tensors = weight, bias  # kept, so that nothing else gets their identity
        self.storage, self.mark, self.product = storage, mark, None
        if weight.dtype != torch.float64:
            self.product = quantize_weight(
                weight.detach(), KINDS[storage], bias=None if bias is None else bias.detach()
            )

    def __reduce__(self):
        return _nothing, ()


def _nothing():
    return None


def pack(weight, bias, storage) -> Packed:
    """The packed copy of these tensors as they are now."""
    mark = _core.fingerprint(weight, bias)
    found = _shared.get((mark, storage))
    if found is None:
        found = _shared[mark, storage] = Packed(weight, bias, storage, mark)
    return found

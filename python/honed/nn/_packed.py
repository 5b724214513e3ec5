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

    __slots__ = ("__weakref__", "mark", "product", "rows", "storage", "tensors")

    def __init__(self, weight, bias, storage, mark, rows):
        if storage not in KINDS:
            known = ", ".join(repr(name) for name in KINDS)
            raise ValueError(f"Linear: storage is {storage!r}, expected {known}")
        self.tensors = weight, bias  # kept, so that nothing else gets their identity
        self.storage, self.mark, self.product, self.rows = storage, mark, None, rows
        if weight.dtype != torch.float64:
            weight, bias = cut(weight.detach(), None if bias is None else bias.detach(), rows)
            self.product = quantize_weight(weight, KINDS[storage], bias=bias)

    def __reduce__(self):
        return _nothing, ()


def _nothing():
    return None


def cut(weight, bias, rows):
    """Only these rows ``(first, end)`` of a weight and its bias; ``None``: all."""
    if rows is None:
        return weight, bias
    rows = slice(*rows)
    return weight[rows], None if bias is None else bias[rows]


def pack(weight, bias, storage, rows=None) -> Packed:
    """The packed copy of these tensors as they are now, or of some of their rows."""
    mark = _core.fingerprint(weight, bias)
    found = _shared.get((mark, storage, rows))
    if found is None:
        found = _shared[mark, storage, rows] = Packed(weight, bias, storage, mark, rows)
    return found


def renew(held: Packed | None, weight, bias, storage, rows=None) -> Packed:
    """What a layer holds, packed anew where it is no longer that of these tensors."""
    if (
        held is not None
        and held.mark == _core.fingerprint(weight, bias)
        and held.storage == storage
        and held.rows == rows
    ):
        return held
    return pack(weight, bias, storage, rows)

"""What the convolutions share: arguments as torch has them, to three spatial dimensions each."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from operator import index

from honed._lib import torch
from honed.ops._activations import ACTIVATIONS
from honed.ops._dispatch import is_compiling

BORDERS = ("zeros", "reflect", "replicate", "circular")  # as ops/conv.h numbers them
_TORCHS = {"zeros": "constant"}


def _each(value) -> tuple:
    """A number, or a scalar array, as a tuple of one."""
    return (value,) if hasattr(value, "__index__") and getattr(value, "ndim", 0) == 0 else tuple(value)


def per_dimension(op: str, what: str, value, n: int, least: int) -> tuple[int, ...]:
    """One number a spatial dimension: plain ints, as torch refuses bools."""
    try:
        values = tuple(
            int(v) if isinstance(v, bool) else v if isinstance(v, int) else index(v) for v in _each(value)
        )
    except TypeError:
        raise TypeError(f"{op}: {what} is {value!r}, expected a whole number or {n} of them") from None
    if len(values) == 1:
        values *= n
    if len(values) != n or any(v < least for v in values):
        raise ValueError(f"{op}: {what} is {value!r}, expected a number of at least {least} or {n} of them")
    return values


@dataclass(frozen=True)
class Geometry:
    """Stride, dilation and padding of ``n`` spatial dimensions."""

    n: int
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    border: str


def geometry(op, n, kernel, stride, padding, dilation, groups, border) -> Geometry:
    """Of torch's arguments; ``kernel``: the weight's spatial sizes. ``padding`` may be a pair a dimension."""
    if border not in BORDERS:
        raise ValueError(f"{op}: padding_mode is {border!r}, expected {', '.join(BORDERS)}")
    stride = per_dimension(op, "stride", stride, n, 1)
    dilation = per_dimension(op, "dilation", dilation, n, 1)
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"{op}: groups is {groups!r}, expected at least 1")
    if padding == "valid":
        before = after = (0,) * n
    elif padding == "same":
        if any(s != 1 for s in stride):
            raise ValueError(f"{op}: padding is 'same' with stride {stride}, expected a stride of 1")
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        before = tuple(t // 2 for t in total)
        after = tuple(t - b for t, b in zip(total, before, strict=True))
    elif isinstance(padding, str):
        raise ValueError(f"{op}: padding is {padding!r}, expected numbers, 'valid' or 'same'")
    elif isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        pairs = [per_dimension(op, "padding", p, 2, 0) for p in padding]
        if len(pairs) != n:
            raise ValueError(f"{op}: padding has {len(pairs)} pairs, expected {n}")
        before, after = (tuple(p[i] for p in pairs) for i in (0, 1))
    else:
        before = after = per_dimension(op, "padding", padding, n, 0)
    return Geometry(n, stride, before, after, dilation, groups, border)


@functools.lru_cache(1024, typed=True)
def _numbers(op, n, kernel, stride, padding, dilation, groups, border, activation):
    g = geometry(op, n, kernel, stride, padding, dilation, groups, border)
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: activation is {activation!r}, expected {', '.join(ACTIVATIONS)}")
    absent = 3 - n
    ones, zeros = (1,) * absent, (0,) * absent
    sizes = (*ones, *g.stride, *zeros, *g.before, *zeros, *g.after, *ones, *g.dilation)
    return g, sizes, (BORDERS.index(border), ACTIVATIONS.index(activation))


def numbers(op, n, kernel, stride, padding, dilation, groups, border, activation):
    """The geometry; stride, padding before and after, and dilation of three dimensions, the first ones
    absent; border and activation as the kernels number them."""
    if is_compiling():  # which would not remember either
        return _numbers.__wrapped__(op, n, kernel, stride, padding, dilation, groups, border, activation)
    try:
        return _numbers(op, n, kernel, stride, padding, dilation, groups, border, activation)
    except TypeError:  # a list, which cannot be remembered
        return _numbers.__wrapped__(op, n, kernel, stride, padding, dilation, groups, border, activation)


def torchs_conv(input, weight, bias, g: Geometry):
    """torch's own convolution; padding that it lacks is made by its ``pad``."""
    own = getattr(torch.nn.functional, f"conv{g.n}d")
    if g.border == "zeros" and g.before == g.after:
        return own(input, weight, bias, g.stride, g.before, g.dilation, g.groups)
    pad = [p for pair in zip(reversed(g.before), reversed(g.after), strict=True) for p in pair]
    if any(pad):
        input = torch.nn.functional.pad(input, pad, _TORCHS.get(g.border, g.border))
    return own(input, weight, bias, g.stride, 0, g.dilation, g.groups)


def finished(y, activation, residual):
    """``activation(y + residual)`` by torch's differentiable functions."""
    from honed.ops._product import activate

    return activate(y if residual is None else y + residual, activation)

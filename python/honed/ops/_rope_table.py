"""The angles of rotary position embedding, for every published way of stretching them."""

import math

import numpy as np

from honed._lib import torch

# torch where it is there: the bits of the tables are then those of transformers.
_lib = np if torch is None else torch


def rope_table(dim, length, *, base=10000.0, scaling=None):
    """``cos`` and ``sin`` of ``p / base^(2j / dim)`` for every position ``p`` and pair ``j``.

    Args:
        dim: elements of a head that are rotated, even.
        length: positions. With ``"dynamic"`` and ``"longrope"`` all angles depend on it.
        base: ``rope_theta`` of a transformers configuration.
        scaling: ``None``, or ``rope_parameters`` (formerly ``rope_scaling``) of a transformers configuration:
            ``rope_type`` is ``"default"``, ``"linear"``, ``"dynamic"``, ``"llama3"``, ``"yarn"`` or
            ``"longrope"``, with that type's parameters beside it. ``rope_theta`` there replaces ``base``;
            ``partial_rotary_factor`` multiplies ``dim``, as for NeoX; ``max_position_embeddings`` is read
            where a type needs it and the configuration has it elsewhere.

    Returns:
        ``(cos, sin)``, each ``(length, dim / 2)`` float32: torch tensors where torch is installed, else NumPy
        arrays. ``"yarn"`` and ``"longrope"`` multiply both by their attention factor.

    Raises:
        ValueError: another ``rope_type``, or one without a parameter that it needs.

    Source: ``modeling_rope_utils.py`` of transformers; https://arxiv.org/abs/2309.00071 (yarn, dynamic),
    https://arxiv.org/abs/2402.13753 (longrope)

    >>> cos, sin = rope_table(4, 2)
    >>> [[round(float(c), 4) for c in row] for row in cos]
    [[1.0, 1.0], [0.5403, 0.9999]]
    """
    given = dict(scaling or {})
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in _FREQUENCIES:
        raise ValueError(f"rope_table: rope_type is {kind!r}, expected one of {', '.join(_FREQUENCIES)}")
    base = given.get("rope_theta", base)
    dim = int(dim * given.get("partial_rotary_factor", 1.0))
    if dim < 2 or dim % 2:
        raise ValueError(f"rope_table: {dim} elements are rotated, expected an even number of at least 2")
    try:
        frequencies, factor = _FREQUENCIES[kind](dim, length, base, given)
    except KeyError as missing:
        raise ValueError(f"rope_table: scaling of type {kind!r} has no {missing}") from None
    angles = _lib.outer(_lib.arange(length, dtype=_lib.float32), frequencies)
    return _lib.cos(angles) * factor, _lib.sin(angles) * factor


def _exponents(dim):
    return _lib.arange(0, dim, 2, dtype=_lib.float32) / dim


def _default(dim, length, base, given):
    return 1.0 / base ** _exponents(dim), 1.0


def _linear(dim, length, base, given):
    return _default(dim, length, base, given)[0] / given["factor"], 1.0


def _dynamic(dim, length, base, given):
    trained, factor = given["max_position_embeddings"], given["factor"]
    stretch = factor * max(length, trained) / trained - (factor - 1)
    return _default(dim, length, base * stretch ** (dim / (dim - 2)), given)


def _llama3(dim, length, base, given):
    plain = _default(dim, length, base, given)[0]
    factor, low, high = given["factor"], given["low_freq_factor"], given["high_freq_factor"]
    trained = given["original_max_position_embeddings"]
    wavelength = 2 * math.pi / plain
    smooth = (trained / wavelength - low) / (high - low)
    mixed = (1 - smooth) * (plain / factor) + smooth * plain
    slowed = _lib.where(wavelength > trained / low, plain / factor, plain)
    between = (wavelength >= trained / high) & (wavelength <= trained / low)
    return _lib.where(between, mixed, slowed), 1.0


def _stretch(given):
    """How many times longer than in training; from the lengths where it is not given."""
    if given.get("factor") is not None:
        return given["factor"]
    return given["max_position_embeddings"] / given["original_max_position_embeddings"]


def _yarn(dim, length, base, given):
    factor, trained = _stretch(given), given["original_max_position_embeddings"]

    def magnitude(weight):
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = given.get("attention_factor")
    if attention is None:
        weight, weight_all = given.get("mscale"), given.get("mscale_all_dim")
        attention = magnitude(weight) / magnitude(weight_all) if weight and weight_all else magnitude(1)

    def pair_of(turns):  # the pair that makes so many turns over the trained length
        return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair_of(given.get("beta_fast") or 32), pair_of(given.get("beta_slow") or 1)
    if given.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    plain = base ** _exponents(dim)
    keep = 1 - _lib.clip((_lib.arange(dim // 2, dtype=_lib.float32) - low) / (high - low), 0, 1)
    return 1.0 / (factor * plain) * (1 - keep) + 1.0 / plain * keep, attention


def _longrope(dim, length, base, given):
    trained, factor = given["original_max_position_embeddings"], _stretch(given)
    attention = given.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    stretch = given["long_factor"] if length > trained else given["short_factor"]
    return 1.0 / (_lib.asarray(stretch, dtype=_lib.float32) * base ** _exponents(dim)), attention


_FREQUENCIES = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}

"""Weights in the layout of the linear kernels, as they are or rounded."""

from honed._lib import _core


def quantize_weight(weight, kind="exact", group=32, bias=None, *, rows="int8", importance=None, groups=1):
    """Packs a weight ``(N, K)`` once, for :func:`honed.ops.linear` to use many times.

    ==========  =====================================================  =================
    ``kind``    stored                                                 bytes a weight
    ==========  =====================================================  =================
    ``exact``   the cheapest of grid4, grid8, bf16, f16, f32 that      0.625 to 4
                holds every value
    ``f32``     float32                                                4
    ``f16``     float16                                                2
    ``bf16``    bfloat16                                               2
    ``int8``    round(w / s), s = max \\|w\\| / 127 an output channel     1
    ``int4``    round((w - low) / step), 0 to 15; both float16 and     0.625 (group 32),
                fitted to each group of inputs                         0.5625 (group 64)
    ``grid4``   weights that are step * q + low exactly, as expanded   0.625
                from a 4-bit file; multiplied in float32
    ``grid8``   weights that are step * q exactly, from an 8-bit file  1.0625
    ==========  =====================================================  =================

    Args:
        weight: ``(N, K)``, float32, float16 or bfloat16, any strides; torch or NumPy.
        group: inputs that share a scale: of int4 weights, and of the rows that meet int8 and int4 weights.
            32 or 64, for int8 any multiple of 32, or ``None``: one scale a row ("per token"; of rows of more
            than 131072 inputs, one each 131072). A longer group is faster with many rows; a shorter one keeps
            more of rows whose inputs differ much in size.
        rows: what rows become to meet int8 and int4 weights: ``int8``, or ``float``: they stay as they are
            ("weight-only"), and the product is as exact as float32 sums are.
        importance: ``(K,)`` float32: the mean square of what reaches each input. int4 then makes the error
            of the product least instead of that of the weight.
        bias: ``(N,)``, kept in float32 and added by ``linear``.
        groups: of a convolution.

    A weight of three to five dimensions, ``(O, C / groups, ...)``, is that of a convolution
    (:func:`honed.ops.conv2d`): ``exact``, or ``int8``: multiplied as floats, one scale an
    output channel. A depthwise weight stays exact.

    Returns:
        A packed weight with ``kind``, ``out_features``, ``in_features``, ``group``, ``rows``, ``nbytes`` and
        ``unpack()``, the float32 matrix that the kernels multiply with.

    Raises:
        ValueError: a kind, group or shape that does not fit. TypeError: a type without a kernel.

    Source: https://arxiv.org/abs/1712.05877 (integer matrix products with scales)

    >>> import numpy as np
    >>> packed = quantize_weight(np.eye(3, 8, dtype=np.float32), "int8")
    >>> packed.kind, packed.out_features, packed.in_features
    ('int8', 3, 8)
    """
    if len(weight.shape) > 2:
        if kind not in ("exact", "int8"):
            raise ValueError(f"quantize_weight: kind is {kind!r} for a convolution, expected exact or int8")
        return _core.pack_conv_weight(weight, bias, groups, kind == "int8")
    if group is None:
        group = 0
    biases = None if bias is None else [bias]
    return _core.pack_weight([weight], kind, group, biases, False, importance, rows)

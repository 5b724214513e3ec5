"""Weights in the layout of the linear kernels, as they are or rounded."""

from honed._lib import _core


def quantize_weight(weight, kind="exact", group=32, bias=None, *, importance=None):
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
        group: inputs that share a scale, 32 or 64: of int4 weights, and of the rows that meet int8 and
            int4 weights.
        importance: ``(K,)`` float32: the mean square of what reaches each input. int4 then makes the error
            of the product least instead of that of the weight.
        bias: ``(N,)``, kept in float32 and added by ``linear``.

    Returns:
        A packed weight with ``kind``, ``out_features``, ``in_features``, ``group``, ``nbytes`` and
        ``unpack()``, the float32 matrix that the kernels multiply with.

    Raises:
        ValueError: a kind, group or shape that does not fit. TypeError: a type without a kernel.

    Source: https://arxiv.org/abs/1712.05877 (integer matrix products with scales)

    >>> import numpy as np
    >>> packed = quantize_weight(np.eye(3, 8, dtype=np.float32), "int8")
    >>> packed.kind, packed.out_features, packed.in_features
    ('int8', 3, 8)
    """
    if kind == "exact":
        kind = _core.exact_kind([weight])
    return _core.pack_weight([weight], kind, group, None if bias is None else [bias], False, importance)

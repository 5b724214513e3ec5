"""Attention."""

from honed._lib import _core, torch
from honed.ops._dispatch import fall_back, runs_natively

_MAX_HEAD_DIM = 256


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """``softmax(scale * query @ key^T + attn_mask) @ value``, in memory that does not grow with ``T * S``.

    Args:
        query: ``(B, H, T, D)``, ``(B, T, D)`` or ``(T, D)``; float32, float16 or bfloat16; a torch tensor or
            NumPy array. Strides are free as long as the last dimension is contiguous (else it is copied).
        key, value: ``(B, H, S, D)`` and ``(B, H, S, Dv)``, of the query's type; float16 or bfloat16 may stand
            beside a float32 query.
        attn_mask: broadcasts to ``(B, H, T, S)``; boolean (True: seen) or float (added to the scores).
        dropout_p: above 0 goes to torch's own op, and so do gradients and heads over 256 elements.
        is_causal: query ``t`` sees keys ``0..t``; not together with ``attn_mask``.
        scale: ``None`` is ``1 / sqrt(D)``.
        enable_gqa: ``H`` query heads share ``Hkv`` key heads, ``H`` a multiple of ``Hkv``.

    Returns:
        ``(B, H, T, Dv)`` like ``query``, lying in memory as ``(B, T, H, Dv)``: joining the heads moves
        nothing. Sums are float32. A query that sees no key gives 0.

    Raises:
        ValueError: shapes that do not fit, ``attn_mask`` with ``is_causal``.
        TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html;
    Dao et al., FlashAttention, https://arxiv.org/abs/2205.14135

    >>> import numpy as np
    >>> q = k = np.eye(2, dtype=np.float32)[None, None]
    >>> v = np.array([[[[1.0], [3.0]]]], dtype=np.float32)
    >>> scaled_dot_product_attention(q, k, v, is_causal=True).astype(float).round(3).ravel().tolist()
    [1.0, 2.34]
    """
    if (
        dropout_p == 0.0
        and runs_natively(query, key, value)
        and _fits(query, key, value, attn_mask, enable_gqa)
    ):
        if is_causal and attn_mask is not None:
            raise ValueError(
                "scaled_dot_product_attention: got attn_mask and is_causal, expected at most one of them"
            )
        if scale is None:
            scale = query.shape[-1] ** -0.5
        out = _core.scaled_dot_product_attention(query, key, value, attn_mask, scale, is_causal).swapaxes(
            1, 2
        )
        dims = len(query.shape)
        return out if dims == 4 else out[0] if dims == 3 else out[0, 0]
    return fall_back(
        "scaled_dot_product_attention",
        torch.nn.functional.scaled_dot_product_attention,
        query,
        key,
        value,
        attn_mask,
        dropout_p,
        is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
    )


def _fits(query, key, value, mask, enable_gqa) -> bool:
    """False where torch's op may take what the kernel does not: broadcasting, other ranks, large heads."""
    q, k, v = query.shape, key.shape, value.shape
    if (
        not (2 <= len(q) <= 4 and len(q) == len(k) == len(v))
        or not 0 < q[-1] <= _MAX_HEAD_DIM
        or v[-1] > _MAX_HEAD_DIM
    ):
        return False
    batch = len(q) - 3 if enable_gqa and len(q) == 4 else len(q) - 2
    if q[:batch] != k[:batch] or k[:-2] != v[:-2]:
        return False
    if mask is None or torch is None or not isinstance(mask, torch.Tensor):
        return True
    if mask.dtype is torch.bool:
        return mask.is_cpu and type(mask) is torch.Tensor
    return runs_natively(mask)

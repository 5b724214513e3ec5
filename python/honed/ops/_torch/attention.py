"""Attention in torch: shapes, tracing, and attention composed of torch ops."""

from __future__ import annotations

import torch

from honed.ops._attention import NAME, offset_and_end, window_bounds
from honed.ops._dispatch import traced_answer
from honed.ops._library import result_of


@result_of(NAME)
def _(query, key, value, *more):
    def heads(t):
        return t.shape[-3] if t.dim() > 2 else 1

    batch = query.shape[0] if query.dim() > 3 else 1
    return_lse = more[-2]
    lse = (batch, heads(query), query.shape[-2]) if return_lse else (0,)
    wide = torch.float64 if query.dtype == torch.float64 and return_lse else torch.float32
    return (
        query.new_empty((batch, query.shape[-2], heads(query), value.shape[-1])),
        query.new_empty(lse, dtype=wide),
    )


def reads_traced(*tensors) -> int:
    """As ``_core.reads``, while tracing."""
    return traced_answer([t for t in tensors if t is not None], lambda dtype: True)


def attention(
    query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, *, window=None, query_offset=0,
    softcap=0.0, bias=None, alibi_slopes=None, sinks=None, key_mask=None, cu_seqlens_q=None,
    cu_seqlens_k=None, seqused_k=None, block_table=None, key_scale=None, value_scale=None,
    return_lse=False, seed=None,
):  # fmt: skip
    """As :func:`honed.ops.scaled_dot_product_attention`, on any device and with any gradient.

    For tensors that the kernels do not take and arguments that torch's op does not have. Memory is
    ``T * S``, and dropout has other random bits.
    """
    dims = query.dim()
    q, k, v = (t.reshape((1,) * max(0, 4 - t.dim()) + t.shape) for t in (query, key, value))
    if key_scale is not None:
        k, v = (t.to(q.dtype) * s.reshape(*t.shape[:3], 1) for t, s in ((k, key_scale), (v, value_scale)))
    k, v = k.to(q.dtype), v.to(q.dtype)
    if block_table is not None:
        k, v = (t[block_table.long()].transpose(1, 2).flatten(2, 3) for t in (k, v))
    left, right = window_bounds(window, is_causal)
    offset, from_end = offset_and_end(query_offset)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if seed is not None:
        seed = torch.Generator(q.device).manual_seed(int(seed))

    starts = [None if c is None else c.tolist() for c in (cu_seqlens_q, cu_seqlens_k)]
    lengths = None if seqused_k is None else seqused_k.tolist()
    divided = starts[0] is not None or starts[1] is not None
    if not divided and lengths is None:
        parts = [(q, k, v, attn_mask, bias, key_mask, alibi_slopes)]
    else:
        count = next(len(c) - 1 for c in (*starts, lengths and [*lengths, 0]) if c is not None)
        parts = []
        for b in range(count):
            of_q, of_k, of_v = (
                _sequence(t, c, b) for t, c in zip((q, k, v), (*starts, starts[1]), strict=True)
            )
            of_k, of_v = (t if lengths is None else t[:, :, : lengths[b]] for t in (of_k, of_v))
            masks = [_of_batch(m, b, of_q.shape[2], of_k.shape[2], count) for m in (attn_mask, bias)]
            keys = None if key_mask is None else key_mask[b : b + 1, : of_k.shape[2]]
            slopes = (
                alibi_slopes if alibi_slopes is None or alibi_slopes.dim() == 1 else alibi_slopes[b : b + 1]
            )
            parts.append((of_q, of_k, of_v, *masks, keys, slopes))
    done = [
        _one(*part, dropout_p, scale, enable_gqa, left, right, offset, from_end, softcap, sinks, seed)
        for part in parts
    ]
    along = 2 if starts[0] is not None else 0
    out, lse = (
        torch.cat(list(each), along) if len(done) > 1 else each[0] for each in zip(*done, strict=True)
    )
    if dims < 4:
        out, lse = (t[0] if dims == 3 else t[0, 0] for t in (out, lse))
    return (out, lse) if return_lse else out


def _sequence(t, starts, b):
    """Sequence b: of a batch, or of those one after the other."""
    return t[b : b + 1] if starts is None else t[:, :, starts[b] : starts[b + 1]]


def _of_batch(mask, b, queries, keys, count):
    if mask is None:
        return None
    mask = mask.reshape((1,) * (4 - mask.dim()) + mask.shape)
    mask = mask[b : b + 1] if mask.shape[0] == count else mask
    mask = mask[:, :, :queries] if mask.shape[2] > 1 else mask
    return mask[..., :keys] if mask.shape[3] > 1 else mask


def _one(q, k, v, attn_mask, bias, key_mask, slopes, dropout_p, scale, enable_gqa, left, right, offset,
         from_end, softcap, sinks, generator):  # fmt: skip
    """Sequences of one length."""
    dtype = q.dtype
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    q, k, v = q.to(wide), k.to(wide), v.to(wide)
    if enable_gqa:
        group = q.shape[-3] // max(k.shape[-3], 1)
        k, v = k.repeat_interleave(group, -3), v.repeat_interleave(group, -3)
    scores = (q * scale) @ k.mT
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    queries, keys = scores.shape[-2:]
    at = torch.arange(queries, device=q.device)[:, None] + (keys - queries if from_end else offset)
    distance = torch.arange(keys, device=q.device) - at
    seen = torch.ones_like(distance, dtype=torch.bool)
    if left >= 0:
        seen = seen & (distance >= -left)
    if right >= 0:
        seen = seen & (distance <= right)
    for mask in (attn_mask, bias):
        if mask is not None and mask.dtype == torch.bool:
            seen = seen & mask
        elif mask is not None:
            scores = scores + mask
    if key_mask is not None:
        seen = seen & key_mask.bool()[:, None, None]
    if slopes is not None:
        slopes = slopes.to(wide).reshape(-1, slopes.shape[-1], 1, 1)
        scores = scores - slopes * distance.abs()
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        one = sinks.to(wide).reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, one], -1)
    if scores.shape[-1] == 0:
        return (scores @ v).to(dtype), scores.new_full(scores.shape[:-1], -torch.inf)
    nothing = (scores == -torch.inf).all(-1, keepdim=True)
    scores = scores.masked_fill(nothing, 0)
    lse = scores.logsumexp(-1).masked_fill(nothing[..., 0], -torch.inf)
    weights = scores.softmax(-1)[..., :keys].masked_fill(nothing, 0)
    if dropout_p:
        kept = (
            torch.rand(weights.shape, generator=generator, device=q.device, dtype=torch.float32) >= dropout_p
        )
        weights = weights * kept / (1 - dropout_p) if dropout_p < 1 else weights * 0
    return (weights @ v).to(dtype), lse

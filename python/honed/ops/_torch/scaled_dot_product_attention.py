"""scaled_dot_product_attention in torch: gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again, needs_torch
from honed.ops._torch.attention import attention

_forward, _backward = function("scaled_dot_product_attention"), function("attention_backward")


@result_of("attention_backward")
def _(
    dout, dlse, out, lse, query, key, value, attn_mask, bias, key_mask, alibi_slopes, sinks, cu_seqlens_q,
    cu_seqlens_k, seqused_k, scale, softcap, dropout_p, window_left, window_right, offset, offset_from_end,
    seed, need_query, need_key, need_value, need_bias, need_sinks,
):  # fmt: skip
    sums = torch.float64 if query.dtype == torch.float64 else torch.float32

    def none():
        return query.new_empty(0, dtype=torch.float32)

    heads = [
        t.new_empty([t.shape[d] for d in _order(t)]) if need else none()
        for t, need in ((query, need_query), (key, need_key), (value, need_value))
    ]
    others = [
        t.new_empty(t.shape, dtype=sums) if need and t is not None else none()
        for t, need in ((bias, need_bias), (sinks, need_sinks))
    ]
    return *heads, *others


def _order(tensor) -> tuple[int, ...]:
    """The dimensions of (B,H,T,D) as its gradient has them in memory: by times where the tensor has."""
    return (0, 2, 1, 3) if tensor.stride(1) < tensor.stride(2) else (0, 1, 2, 3)


class Attention(torch.autograd.Function):
    """The result and lse, with gradients of query, key, value, bias and sinks."""

    @staticmethod
    def forward(
        ctx, query, key, value, bias, sinks, attn_mask, key_mask, alibi_slopes, cu_seqlens_q, cu_seqlens_k,
        seqused_k, numbers,
    ):  # fmt: skip
        """``numbers``: scale, softcap, dropout_p, window_left and _right, offset, offset_from_end, seed."""
        others = attn_mask, key_mask, alibi_slopes, cu_seqlens_q, cu_seqlens_k, seqused_k
        out, lse = _forward(
            query, key, value, attn_mask, bias, key_mask, alibi_slopes, sinks, *others[3:], None, None, None,
            *numbers[:7], True, numbers[7],
        )  # fmt: skip
        out = out.transpose(1, 2)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, bias, sinks, *others, out, lse)
        ctx.numbers = numbers
        return out, lse

    @staticmethod
    def backward(ctx, dout, dlse):
        *inputs, out, lse = ctx.saved_tensors
        need = ctx.needs_input_grad[:5]
        none = (None,) * 7
        given = [(i, g) for i, g in enumerate((dout, dlse)) if g is not None]
        if not given:
            return (None,) * 12
        if needs_torch(dout, dlse, *inputs[:5]):
            which, grads = zip(*given, strict=True)

            def composed(*five):
                both = _composed(*five, *inputs[5:], *ctx.numbers)
                return [both[i] for i in which]

            return *again(composed, inputs[:5], grads, need), *none
        dout = torch.zeros_like(out) if dout is None else dout
        query, key, value, bias, sinks, attn_mask, key_mask, alibi_slopes, *sequences = inputs
        found = _backward(
            dout, dlse, out, lse, query, key, value, attn_mask, bias, key_mask, alibi_slopes, sinks,
            *sequences, *ctx.numbers, *need,
        )  # fmt: skip
        heads = [
            g.permute(_order(t)) if n else None
            for g, t, n in zip(found[:3], inputs[:3], need[:3], strict=True)
        ]
        others = [
            g.to(t.dtype) if n else None for g, t, n in zip(found[3:], (bias, sinks), need[3:], strict=True)
        ]
        return *heads, *others, *none


def attend(query, key, value, attn_mask, tensors, numbers):
    """The result, (B,H,T,Dv), and lse.

    Args:
        query, key, value: of 2 to 4 dimensions.
        tensors: bias to seqused_k, by name.
        numbers: as :meth:`Attention.forward` has them.
    """
    heads = [t[(None,) * (4 - t.dim())] if t.dim() < 4 else t for t in (query, key, value)]
    bias = tensors.get("bias")
    if attn_mask is not None and attn_mask.requires_grad:
        attn_mask, bias = bias, attn_mask
    return Attention.apply(
        *heads, bias, tensors.get("sinks"), attn_mask,
        *(tensors.get(n) for n in ("key_mask", "alibi_slopes", "cu_seqlens_q", "cu_seqlens_k", "seqused_k")),
        numbers,
    )  # fmt: skip


def differentiates(attn_mask, tensors) -> bool:
    """Whether :class:`Attention` has the gradients that are wanted: no more than one mask's, no slopes'."""
    bias, slopes = tensors.get("bias"), tensors.get("alibi_slopes")
    if any(tensors.get(name) is not None for name in ("block_table", "key_scale", "value_scale")):
        return False
    if slopes is not None and slopes.requires_grad:
        return False
    masked = attn_mask is not None and attn_mask.requires_grad
    return not (masked and bias is not None and bias.requires_grad)


def _composed(
    query, key, value, bias, sinks, attn_mask, key_mask, alibi_slopes, cu_seqlens_q, cu_seqlens_k, seqused_k,
    scale, softcap, dropout_p, left, right, offset, offset_from_end, seed,
):  # fmt: skip
    """The same in torch ops."""

    def run(value):
        return attention(
            query, key, value, attn_mask, 0.0, False, scale, True, window=(left, right),
            query_offset="end" if offset_from_end else offset, softcap=softcap, bias=bias,
            alibi_slopes=alibi_slopes, sinks=sinks, key_mask=key_mask, cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k, seqused_k=seqused_k, return_lse=True,
        )  # fmt: skip

    if not dropout_p:
        return run(value)
    if cu_seqlens_q is not None or cu_seqlens_k is not None:
        raise NotImplementedError(
            "scaled_dot_product_attention: gradients of gradients with dropout and cu_seqlens"
        )
    (batch, heads, queries, _), keys = query.shape, key.shape[2]
    each = torch.eye(keys, dtype=query.dtype).expand(*key.shape[:2], keys, keys)
    weights, lse = run(each)
    kept = _kept(seed, batch * heads * queries, keys, dropout_p).view_as(weights)
    value = value.repeat_interleave(heads // value.shape[1], 1).to(query.dtype)
    return weights * kept * (1 / (1 - dropout_p) if dropout_p < 1 else 0.0) @ value, lse


def _kept(seed, rows, columns, p):
    """(rows, columns): what dropout keeps, as ``csrc/core/rng.h`` draws it."""

    def signed(x):
        x %= 1 << 64
        return x - (x >> 63 << 64)

    def mix(x):
        for by, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            x = (x ^ (x >> by & (1 << 64 - by) - 1)) * signed(factor)
        return x

    golden, low = 0x9E3779B97F4A7C15, (1 << 32) - 1
    row = mix(torch.tensor(signed(seed + golden))) + torch.arange(1, rows + 1)[:, None] * signed(golden)
    key = mix(row)
    x = (torch.arange(columns) + key) & low
    x = (x ^ x >> 16) * 0x7FEB352D & low
    x = (x ^ x >> 15 ^ key >> 32 & low) * 0x846CA68B & low
    return (x ^ x >> 16) >= int(torch.tensor(p, dtype=torch.float32).double() * (1 << 32))

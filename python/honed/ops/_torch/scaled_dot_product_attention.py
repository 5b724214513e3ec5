"""scaled_dot_product_attention in torch: gradients."""

import torch

from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again
from honed.ops._torch.attention import attention

_forward, _backward = function("scaled_dot_product_attention"), function("attention_backward")


@result_of("attention_backward")
def _(
    dout, dlse, out, lse, query, key, value, attn_mask, bias, key_mask, alibi_slopes, sinks, cu_seqlens_q,
    cu_seqlens_k, seqused_k, scale, softcap, dropout_p, window_left, window_right, offset, offset_from_end,
    seed, need_query, need_key, need_value, need_bias, need_sinks,
):  # fmt: skip
    sums = torch.float64 if query.dtype == torch.float64 else torch.float32
    none = query.new_empty(0, dtype=torch.float32)
    heads = [
        t.new_empty([t.shape[d] for d in _order(t)]) if need else none
        for t, need in ((query, need_query), (key, need_key), (value, need_value))
    ]
    others = [
        t.new_empty(t.shape, dtype=sums) if need and t is not None else none
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
        given = [g for g in (dout, dlse) if g is not None]
        if torch.is_grad_enabled() and any(g.requires_grad for g in given):
            composed = lambda *five: _composed(*five, *inputs[5:], *ctx.numbers)  # noqa: E731
            grads = [torch.zeros_like(t) if g is None else g for g, t in ((dout, out), (dlse, lse))]
            return *again(composed, inputs[:5], grads, need), *none
        if not given:
            return (None,) * 12
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
    return attention(
        query, key, value, attn_mask, dropout_p, False, scale, True, window=(left, right),
        query_offset="end" if offset_from_end else offset, softcap=softcap, bias=bias,
        alibi_slopes=alibi_slopes, sinks=sinks, key_mask=key_mask, cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k, seqused_k=seqused_k, return_lse=True, seed=seed,
    )  # fmt: skip

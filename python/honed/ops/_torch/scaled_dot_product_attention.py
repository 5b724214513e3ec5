"""scaled_dot_product_attention in torch: shapes, gradients."""

import torch

from honed.ops._attention_reference import attention
from honed.ops._dispatch import function
from honed.ops._library import result_of
from honed.ops._torch._gradient import again

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
    """The dimensions of (B,H,T,D) as a gradient has them in memory: by times where the operand has them so."""
    return (0, 2, 1, 3) if tensor.stride(1) < tensor.stride(2) else (0, 1, 2, 3)


class Attention(torch.autograd.Function):
    """The result and lse, with gradients of query, key, value, bias and sinks."""

    @staticmethod
    def forward(ctx, query, key, value, bias, sinks, masks, sequences, numbers):
        """``masks``: attn_mask, key_mask, alibi_slopes. ``sequences``: cu_seqlens_q, cu_seqlens_k, seqused_k.

        ``numbers``: scale, softcap, dropout_p, window_left, window_right, offset, offset_from_end, seed.
        """
        attn_mask, key_mask, alibi_slopes = masks
        out, lse = _forward(
            query, key, value, attn_mask, bias, key_mask, alibi_slopes, sinks, *sequences, None, None, None,
            *numbers[:7], True, numbers[7],
        )  # fmt: skip
        out = out.swapaxes(1, 2)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, bias, sinks, *masks, *sequences, out, lse)
        ctx.numbers = numbers
        return out, lse

    @staticmethod
    def backward(ctx, dout, dlse):
        saved = ctx.saved_tensors
        inputs, others, (out, lse) = saved[:5], saved[5:11], saved[11:]
        need = ctx.needs_input_grad[:5]
        none = (None,) * 3
        if dout is None and dlse is None:
            return (None,) * 8
        if torch.is_grad_enabled() and any(g is not None and g.requires_grad for g in (dout, dlse)):
            plain = lambda *inputs: _composed(*inputs, *others, *ctx.numbers)  # noqa: E731
            grads = [torch.zeros_like(t) if g is None else g for g, t in ((dout, out), (dlse, lse))]
            return *again(plain, inputs, grads, need), *none
        if dout is None:
            dout = torch.zeros_like(out)
        query, key, value, bias, sinks = inputs
        attn_mask, key_mask, alibi_slopes, *sequences = others
        found = _backward(
            dout, dlse, out, lse, query, key, value, attn_mask, bias, key_mask, alibi_slopes, sinks,
            *sequences, *ctx.numbers, *need,
        )  # fmt: skip
        heads = [
            g.permute(_order(t)) if n else None for g, t, n in zip(found, inputs, need, strict=False)
        ]
        rest = [
            g.to(t.dtype) if n else None
            for g, t, n in zip(found[3:], inputs[3:], need[3:], strict=True)
        ]
        return *heads, *rest, *none


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

"""Attention."""

from honed._lib import _core, torch
from honed.ops._attention import NAME, offset_and_end, offset_of, seed_of, window_bounds
from honed.ops._dispatch import fall_back, function, tracing

if torch is not None:
    from honed.ops._torch.attention import attention, reads_traced
    from honed.ops._torch.scaled_dot_product_attention import attend, differentiates

_attend = function(NAME)
_at_once = _core.attention_at_once
_MAX_HEAD_DIM = 512
_NOTHING = {}
_NO_TENSORS = (None,) * 10


def scaled_dot_product_attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    *,
    window=None,
    query_offset=0,
    softcap=0.0,
    bias=None,
    alibi_slopes=None,
    sinks=None,
    key_mask=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    seqused_k=None,
    block_table=None,
    key_scale=None,
    value_scale=None,
    return_lse=False,
    seed=None,
):
    """``softmax(softcap(scale * query @ key^T) + masks) @ value``, memory O(S).

    Query ``t`` stands at ``p = t + query_offset`` among the keys; causal masks, windows and ALiBi count from
    there. Every argument up to ``enable_gqa`` is torch's; the others are honed's.

    Args:
        query: ``(B, H, T, D)``, ``(H, T, D)`` or ``(T, D)``; float64, float32, float16 or bfloat16; a torch
            tensor or NumPy array. Strides are free as long as the last dimension is contiguous (else it is
            copied).
        key, value: ``(B, Hkv, S, D)`` and ``(B, Hkv, S, Dv)``, of the query's type; float16, bfloat16 or int8
            may stand beside a float32 query.
        attn_mask: broadcasts to ``(B, H, T, S)``; boolean (True: seen) or float (added to the scores); or
            ``torch.nn.attention.bias.causal_upper_left`` and ``causal_lower_right``.
        dropout_p: share of the weights that are dropped, the others being scaled by ``1 / (1 - dropout_p)``.
        is_causal: query ``t`` sees keys up to ``p``; not together with ``attn_mask``.
        scale: ``None`` is ``1 / sqrt(D)``.
        enable_gqa: ``H`` query heads share ``Hkv`` key heads, ``H`` a multiple of ``Hkv``.
        window: ``(left, right)``: only keys from ``p - left`` to ``p + right`` are seen; ``-1`` or ``None``
            is unbounded.
        query_offset: where query 0 stands among the keys. ``"end"`` is ``S - T``, of each sequence's own
            lengths: the last query stands at the last key, as with a cache.
        softcap: ``c > 0`` makes a score ``c * tanh(score / c)``, before masks and biases.
        bias: float, broadcasts to ``(B, H, T, S)``; added to the scores, beside any ``attn_mask``.
        alibi_slopes: ``(H,)`` or ``(B, H)``; ``slope * |p - s|`` is taken from the score of key ``s``.
        sinks: ``(H,)``: the score of one more key a head, which every query sees and which has no value.
        key_mask: ``(B, S)`` boolean, False: padding that nobody sees.
        cu_seqlens_q, cu_seqlens_k: ``(B + 1,)`` int32 or int64, from 0 to ``total``: sequences of different
            lengths one after the other along ``T`` (or ``S``) of a ``(H, total, D)`` tensor. Of the layout
            ``(total, H, D)`` pass ``.transpose(0, 1)``. Masks then count within a sequence.
        seqused_k: ``(B,)`` int32 or int64: only so many keys of a sequence count.
        block_table: ``(B, blocks)`` int32 or int64: key ``s`` of sequence ``b`` is row ``s % page`` of
            page ``block_table[b, s // page]`` of ``key`` and ``value``, ``(pages, Hkv, page, D)``.
        key_scale, value_scale: ``(B, Hkv, S)`` float32, or ``(pages, Hkv, page)``, with int8 keys and values:
            key ``s`` is ``key[s] * key_scale[s]``.
        return_lse: return ``(result, lse)``; ``lse`` is ``(B, H, T)`` float32 (float64 of float64), the
            logarithm of the sum of exponentials, sinks included, ``-inf`` where nothing is seen.
        seed: of the dropout; ``None`` draws one from torch's generator, so that ``torch.manual_seed``
            reproduces it. Arrays need one.

    Returns:
        ``(B, H, T, Dv)`` like ``query``, lying in memory as ``(B, T, H, Dv)``: joining the heads moves
        nothing. Sums are float32, float64 of float64. A query that sees no key gives 0. Gradients, of ``lse``
        too, reach query, key, value, bias (or a float attn_mask) and sinks in memory that does not grow with
        ``T * S`` either, with the same bits on any number of threads. Slopes, or a mask and a bias at once,
        get theirs from the composition below.

    Raises:
        ValueError: shapes that do not fit, arguments that exclude each other. TypeError: a type without a
            kernel.

    Tensors that the kernels do not take (another device, a subclass, heads over 512 elements, batches that
    broadcast) go to torch's own op; to a composition of torch ops with memory ``T * S`` where an argument of
    honed's is given.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html;
    Dao et al., FlashAttention, https://arxiv.org/abs/2205.14135; Press et al., ALiBi,
    https://arxiv.org/abs/2108.12409; Kwon et al., PagedAttention, https://arxiv.org/abs/2309.06180; Xiao et
    al., attention sinks, https://arxiv.org/abs/2309.17453

    >>> import numpy as np
    >>> q = k = np.eye(2, dtype=np.float32)[None, None]
    >>> v = np.array([[[[1.0], [3.0]]]], dtype=np.float32)
    >>> scaled_dot_product_attention(q, k, v, is_causal=True).astype(float).round(3).ravel().tolist()
    [1.0, 2.34]
    >>> scaled_dot_product_attention(q[:, :, :1], k, v, query_offset="end", window=(0, 0)).item()
    3.0
    """
    tensors = options = _NOTHING
    traced = tracing()
    if (
        window is not None
        or query_offset != 0
        or softcap != 0.0
        or bias is not None
        or alibi_slopes is not None
        or sinks is not None
        or key_mask is not None
        or cu_seqlens_q is not None
        or cu_seqlens_k is not None
        or seqused_k is not None
        or block_table is not None
        or key_scale is not None
        or value_scale is not None
        or return_lse
        or seed is not None
    ):
        tensors = {
            "bias": bias,
            "key_mask": key_mask,
            "alibi_slopes": alibi_slopes,
            "sinks": sinks,
            "cu_seqlens_q": cu_seqlens_q,
            "cu_seqlens_k": cu_seqlens_k,
            "seqused_k": seqused_k,
            "block_table": block_table,
            "key_scale": key_scale,
            "value_scale": value_scale,
        }
        options = {
            "window": window,
            "query_offset": query_offset,
            "softcap": softcap,
            "return_lse": return_lse,
            "seed": seed,
        }
    elif dropout_p == 0.0 and not traced:
        out = _at_once(query, key, value, attn_mask, is_causal, scale, enable_gqa)
        if out is not None and out is not NotImplemented:
            return out
    if attn_mask is not None:
        if is_causal:
            raise ValueError(f"{NAME}: got attn_mask and is_causal, expected at most one of them")
        if type(attn_mask).__name__ == "CausalBias":  # of torch.nn.attention.bias, where that was imported
            options = {**options, "query_offset": offset_of(attn_mask, query, key, query_offset)}
            return scaled_dot_product_attention(
                query, key, value, None, dropout_p, True, scale, enable_gqa, **tensors, **options
            )
    if torch is not None and torch.is_autocast_enabled("cpu") and key_scale is None:
        dtype = torch.get_autocast_dtype("cpu")
        operands = [_cast(t, dtype) for t in (query, key, value, attn_mask)]
        with torch.autocast("cpu", enabled=False):
            return scaled_dot_product_attention(
                *operands, dropout_p, is_causal, scale, enable_gqa, **tensors, **options
            )
    reads = reads_traced if traced else _core.reads
    answer = reads(query, key, value, attn_mask, *tensors.values())
    if dropout_p and answer and seed is None and traced:
        answer = 0  # the seed is a number that the trace would hold for good
    gradient = answer == 2
    if gradient and not differentiates(attn_mask, tensors):
        answer = 0
    if answer and _fits(query, key, value, enable_gqa, options):
        return _run(query, key, value, attn_mask, dropout_p, is_causal, scale, tensors, options, gradient)
    if options:
        return attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, **tensors, **options
        )
    return fall_back(
        NAME,
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


def _run(query, key, value, attn_mask, dropout_p, is_causal, scale, tensors, options, gradient):
    """The kernel."""
    if scale is None:
        if not query.shape or query.shape[-1] == 0:
            raise ValueError(
                f"{NAME}: query has shape {list(query.shape)}, expected a head size of at least 1"
            )
        scale = query.shape[-1] ** -0.5
    left, right, offset, from_end, return_lse = -1, 0 if is_causal else -1, 0, False, False
    if options:
        left, right = window_bounds(options["window"], is_causal)
        offset, from_end = offset_and_end(options["query_offset"])
        return_lse = options["return_lse"]
    seed = seed_of(options.get("seed"), query) if dropout_p else 0
    numbers = scale, options.get("softcap", 0.0), dropout_p, left, right, offset, from_end
    if gradient:
        out, lse = attend(query, key, value, attn_mask, tensors, (*numbers, seed))
    else:
        more = tensors.values() if tensors else _NO_TENSORS
        out, lse = _attend(query, key, value, attn_mask, *more, *numbers, return_lse, seed)
        out = out.swapaxes(1, 2)
    dims = len(query.shape)
    if dims < 4:
        out = out[0] if dims == 3 else out[0, 0]
        if return_lse:
            lse = lse[0] if dims == 3 else lse[0, 0]
    return (out, lse) if return_lse else out


def _cast(tensor, dtype):
    """What autocast does to an operand."""
    if not isinstance(tensor, torch.Tensor) or not tensor.is_cpu:
        return tensor
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor


def _fits(query, key, value, enable_gqa, options) -> bool:
    """False where the kernel does not reach: large heads, more than 4 dimensions, shapes that broadcast."""
    if torch is None or not isinstance(query, torch.Tensor):
        return True
    q, k, v = query.shape, key.shape, value.shape
    if (
        not (2 <= len(q) <= 4 and 2 <= len(k) <= 4 and len(k) == len(v))
        or not 0 < q[-1] <= _MAX_HEAD_DIM
        or v[-1] > _MAX_HEAD_DIM
    ):
        return False
    heads = [shape[-3] if len(shape) > 2 else 1 for shape in (q, k)]
    if options:
        if heads[0] != heads[1] and not enable_gqa:
            raise ValueError(
                f"{NAME}: {heads[0]} query heads over {heads[1]} key heads, expected enable_gqa=True"
            )
        return k[:-2] == v[:-2]
    batch = len(q) - 3 if enable_gqa and len(q) == 4 else len(q) - 2
    return len(q) == len(k) and q[:batch] == k[:batch] and k[:-2] == v[:-2]

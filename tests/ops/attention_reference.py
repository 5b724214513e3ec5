"""Attention's formula in torch ops, the options that tests go through, the comparison of both."""

import torch

from honed.testing import allowed_error


def made(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def naive(q, k, v, *, attn_mask=None, window=(-1, -1), query_offset=0, softcap=0.0, bias=None,
          alibi_slopes=None, sinks=None, key_mask=None, seqused_k=None, is_causal=False):  # fmt: skip
    """The formula in the operands' type; the result and the logarithm of the sum of exponentials."""
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    queries, keys = q.shape[2], k.shape[2]
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    lengths = torch.full((q.shape[0],), keys) if seqused_k is None else seqused_k
    offset = lengths - queries if query_offset == "end" else torch.full_like(lengths, query_offset)
    at = (torch.arange(queries) + offset[:, None])[:, None, :, None]
    s = torch.arange(keys)
    seen = s < lengths[:, None, None, None]
    seen = seen & (s >= at - window[0]) if window[0] >= 0 else seen
    seen = seen & (s <= at + window[1]) if window[1] >= 0 else seen
    seen = seen & (s <= at) if is_causal else seen
    if key_mask is not None:
        seen = seen & key_mask[:, None, None]
    for mask in (attn_mask, bias):
        if mask is not None and mask.dtype == torch.bool:
            seen = seen & mask
        elif mask is not None:
            scores = scores + mask
    if alibi_slopes is not None:
        slopes = alibi_slopes if alibi_slopes.dim() == 2 else alibi_slopes[None]
        scores = scores - slopes[:, :, None, None] * (at - s).abs()
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(*scores.shape[:3], 1).to(scores.dtype)], -1)
    return scores.softmax(-1).nan_to_num(0)[..., :keys] @ v, scores.logsumexp(-1)


def wide(options):
    return {
        name: t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t
        for name, t in options.items()
    }


def check(got, q, k, v, **options):
    """Result and lse within twice the error of the formula in the operands' own type."""
    references = naive(q.double(), k.double(), v.double(), **wide(options))
    owns = naive(q, k.to(q.dtype), v.to(q.dtype), **options)
    for result, reference, own in zip(got, references, owns, strict=True):
        none = reference.isinf()
        assert torch.equal(result.double()[none], reference[none])
        error = (result.double() - reference)[~none].abs().max().item() if (~none).any() else 0.0
        assert error <= allowed_error(reference, own, q.dtype), error


def features(batch, heads, queries, keys):
    def some(*shape, seed=5):
        return made(shape, seed=seed)[0]

    return {
        "nothing": {},
        "offset": {"is_causal": True, "query_offset": keys - queries},
        "end": {"is_causal": True, "query_offset": "end"},
        "early": {"is_causal": True, "query_offset": -2},
        "left": {"window": (40, -1), "query_offset": "end"},
        "both": {"window": (7, 3), "query_offset": keys // 2},
        "nowhere": {"window": (3, 3), "query_offset": -9},
        "float_mask": {"attn_mask": some(batch, 1, queries, keys)},
        "bool_mask": {"attn_mask": some(heads, 1, keys) > -0.4},
        "column_mask": {"attn_mask": some(keys, queries).mT},
        "bias": {"bias": some(heads, queries, keys), "attn_mask": some(keys) > 0},
        "alibi": {"alibi_slopes": some(heads).abs() / 8, "query_offset": "end"},
        "alibi_rows": {"alibi_slopes": some(batch, heads).abs() / 8, "is_causal": True, "query_offset": 30},
        "softcap": {"softcap": 0.7, "bias": some(keys)},
        "sinks": {"sinks": some(heads) * 3},
        "sinks_alone": {"sinks": some(heads), "key_mask": torch.zeros(batch, keys, dtype=torch.bool)},
        "key_mask": {"key_mask": some(batch, keys) > 0},
        "lengths": {
            "seqused_k": torch.arange(batch) * (keys // batch),
            "query_offset": "end",
            "window": (9, 0),
        },
    }

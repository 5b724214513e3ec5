"""Attention of many queries: every feature against the formula in float64, dropout bit by bit."""

import pytest
import torch
from tests.ops.attention_reference import check, features, made, naive, wide

from honed import _core, ops
from honed.testing import allowed_error, cpu_level

LEVELS = [name for name in ("baseline", "avx2", "avx512", "avx512_bf16") if name in _core.usable_levels()]
attention = ops.scaled_dot_product_attention


def random_bits(seed, counter):
    """``honed::random_bits`` of csrc/core/rng.h."""

    def mix(x):
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    step = 0x9E3779B97F4A7C15
    return mix((mix((seed + step) % 2**64) + (counter + 1) * step) % 2**64)


def random_columns(row_key, columns):
    """``honed::random_column`` of csrc/core/rng.h, of columns 0, 1, ..."""
    x = (torch.arange(columns) + row_key) % 2**32
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15 ^ row_key >> 32) * 0x846CA68B % 2**32
    return x ^ x >> 16


def kept(p, seed, first_row, rows, columns):
    threshold = int(torch.tensor(p).double().item() * 2**32)
    return torch.stack(
        [random_columns(random_bits(seed, first_row + r), columns) >= threshold for r in range(rows)]
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "queries", "keys", "dim", "value_dim"),
    [(3, 3, 67, 61, 33, 17), (4, 2, 70, 130, 64, 64), (2, 1, 40, 90, 128, 100), (2, 2, 21, 37, 300, 512),
     (1, 1, 13, 5, 1, 1)],
)  # fmt: skip
def test_every_feature(level, heads, kv_heads, queries, keys, dim, value_dim):
    q, k, v = made((2, heads, queries, dim), (2, kv_heads, keys, dim), (2, kv_heads, keys, value_dim))
    for name, options in features(2, heads, queries, keys).items():
        with cpu_level(level):
            got = attention(q, k, v, enable_gqa=True, return_lse=True, **options)
            again = attention(q, k, v, enable_gqa=True, **options)
        assert torch.equal(got[0], again), name
        check(got, q, k, v, **options)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("dtype", "dim"), [(torch.float16, 40), (torch.bfloat16, 72), (torch.bfloat16, 33), (torch.bfloat16, 1)]
)
def test_half_precision(level, dtype, dim):
    """At avx512_bf16 by dot instructions, of odd heads and odd numbers of keys too."""
    q, k, v = made((2, 4, 70, dim), (2, 2, 133, dim), (2, 2, 133, dim), dtype=dtype)
    for name, options in features(2, 4, 70, 133).items():
        options = {
            name: t.to(dtype) if isinstance(t, torch.Tensor) and t.is_floating_point() else t
            for name, t in options.items()
        }
        with cpu_level(level):
            got, lse = attention(q, k, v, enable_gqa=True, return_lse=True, **options)
        reference, reference_lse = naive(q.double(), k.double(), v.double(), **wide(options))
        own, own_lse = naive(q, k, v, **options)
        assert got.dtype == dtype
        assert (got.double() - reference).abs().max().item() <= allowed_error(reference, own, dtype), name
        none = reference_lse.isinf()
        assert torch.equal(lse.double()[none], reference_lse[none]), name
        error = (lse.double() - reference_lse)[~none].abs()
        assert none.all() or error.max() <= allowed_error(reference_lse, own_lse, dtype), name


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("scale", [-0.7, 0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_scale(level, scale, dtype):
    q, k, v = made((1, 2, 33, 16), (1, 2, 47, 16), (1, 2, 47, 16), dtype=dtype)
    with cpu_level(level):
        got = attention(q, k, v, scale=scale, is_causal=True)
    by = scale * 16**0.5
    reference, _ = naive(q.double() * by, k.double(), v.double(), is_causal=True)
    own, _ = naive(q * by, k, v, is_causal=True)
    assert (got.double() - reference).abs().max().item() <= allowed_error(reference, own, dtype)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("queries", [1, 4, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sinks_far_from_the_scores(level, queries, dtype):
    """Above them no value has a weight, below them all have theirs; beside no key at all too."""
    sinks = torch.tensor([80.0, 1e30, torch.inf, torch.nan, -80.0, -1e30, -torch.inf, 0.0], dtype=dtype)
    q, k, v = made((1, 8, queries, 16), (1, 8, 150, 16), (1, 8, 150, 16), dtype=dtype)
    keys = torch.stack([torch.ones(150), torch.zeros(150)]).bool()
    q, k, v = (t.expand(2, -1, -1, -1) for t in (q, k, v))
    with cpu_level(level):
        out, lse = attention(q, k, v, sinks=sinks, key_mask=keys, return_lse=True)
        assert torch.equal(out, attention(q, k, v, sinks=sinks, key_mask=keys)) or out.isnan().any()
        plain, plain_lse = attention(q, k, v, return_lse=True)
    torch.testing.assert_close(out[0, 4:7], plain[0, 4:7])
    torch.testing.assert_close(lse[0, 4:7], plain_lse[0, 4:7])
    assert out[0, :3].abs().max() < 1e-25
    assert (out[1, torch.arange(8) != 3] == 0).all()
    assert out[0, 3].isnan().all() and lse[:, 3].isnan().all()
    above = sinks.to(lse.dtype)[:, None].expand(8, queries)
    assert torch.equal(lse[0, :3], above[:3])
    rest = torch.arange(8) != 3
    assert torch.equal(lse[1, rest], above[rest])


@pytest.mark.parametrize("queries", [1, 4, 40])
def test_offsets_as_far_as_they_go(queries):
    q, k, v = made((1, 2, queries, 16), (1, 2, 90, 16), (1, 2, 90, 16))
    plain = attention(q, k, v)
    for offset in (2**40, -(2**40)):
        assert torch.equal(attention(q, k, v, query_offset=offset), plain)
        for window, sees in [((-1, 0), offset > 0), ((0, -1), offset < 0)]:
            got = attention(q, k, v, window=window, query_offset=offset)
            assert torch.equal(got, plain if sees else torch.zeros_like(plain))
        with pytest.raises(ValueError, match="expected at most 1099511627776 either way"):
            attention(q, k, v, query_offset=2 * offset)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window": (9, 4), "query_offset": 20}])
def test_dropout_keeps_what_the_generator_says(level, options):
    """Which weights are kept is told by their values being one-hot: result element s is weight s."""
    heads, queries, keys, p, seed = 3, 37, 45, 0.3, 2**63 - 8
    q, k = made((2, heads, queries, 20), (2, heads, keys, 20))
    v = torch.eye(keys).expand(2, heads, keys, keys)
    with cpu_level(level):
        plain = attention(q, k, v, **options)
        got = attention(q, k, v, dropout_p=p, seed=seed, **options)
        other = attention(q, k, v, dropout_p=p, seed=seed + 1, **options)
    keep = kept(p, seed, 0, 2 * heads * queries, keys).reshape(plain.shape)
    expected = plain * keep / (1 - p)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    assert torch.equal(got == 0, expected == 0)
    assert not torch.equal(got == 0, other == 0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sequences_of_their_own_lengths_are_the_separate_calls(level, dtype):
    starts_q, starts_k = [0, 30, 30, 75, 80], [0, 40, 50, 195, 195]
    q, k, v = made((4, 80, 24), (2, 195, 24), (2, 195, 24), dtype=dtype)
    slopes = made((4, 4))[0].abs()
    options = {"enable_gqa": True, "return_lse": True, "window": (90, 0), "query_offset": "end"}
    starts = {
        "cu_seqlens_q": torch.tensor(starts_q, dtype=torch.int32),
        "cu_seqlens_k": torch.tensor(starts_k),
    }
    with cpu_level(level):
        got = attention(q, k, v, alibi_slopes=slopes, **starts, **options)
        dropped = attention(q, k, v, alibi_slopes=slopes, dropout_p=0.4, seed=3, **starts, **options)
        for b in range(4):
            of_q, of_k = slice(*starts_q[b : b + 2]), slice(*starts_k[b : b + 2])
            one = attention(q[:, of_q], k[:, of_k], v[:, of_k], alibi_slopes=slopes[b], **options)
            assert torch.equal(got[0][:, of_q], one[0])
            assert torch.equal(got[1][:, of_q], one[1])
        even = attention(q * 0, k, torch.ones_like(v), dropout_p=0.4, seed=3, enable_gqa=True, **starts)
    assert torch.equal(dropped[1], got[1])
    for h, t, b in [(0, 0, 0), (3, 29, 0), (2, 50, 2)]:
        keys = starts_k[b + 1] - starts_k[b]
        share = kept(0.4, 3, h * 80 + t, 1, keys).double().mean() / 0.6
        assert abs(even[h, t, 0].double() - share) <= 0.01
    assert (even[:, 75:] == 0).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("page", [16, 7])
def test_shuffled_pages_are_the_dense_cache(level, dtype, page):
    """Bit for bit; entries of the table beyond a sequence's length are never read."""
    keys = page * 12
    q, k, v = made((3, 4, 40, 40), (3, 2, keys, 40), (3, 2, keys, 40))
    scale = {}
    if dtype is torch.int8:
        k, v = ((t * 40).clamp(-127, 127) for t in (k, v))
        scale = {"key_scale": torch.rand(3, 2, keys) / 40, "value_scale": torch.rand(3, 2, keys) / 40}
    else:
        q = q.to(dtype)
    k, v = k.to(dtype), v.to(dtype)
    lengths = torch.tensor([keys, 0, 51])
    order = torch.randperm(36, generator=torch.Generator().manual_seed(1)).reshape(3, 12)

    def paged(t):
        pages = torch.zeros(36, 2, page, *t.shape[3:], dtype=t.dtype)
        for b in range(3):
            for i in range(12):
                pages[order[b, i]] = t[b, :, i * page : (i + 1) * page]
        return pages

    table = order.int()
    for b, length in enumerate(lengths.tolist()):
        table[b, -(-length // page) :] = -1
    options = {"enable_gqa": True, "is_causal": True, "query_offset": "end", "return_lse": True}
    with cpu_level(level):
        dense = attention(q, k, v, seqused_k=lengths, **scale, **options)
        pages = {name: paged(t) for name, t in scale.items()}
        got = attention(q, paged(k), paged(v), seqused_k=lengths, block_table=table, **pages, **options)
    for a, b in zip(got, dense, strict=True):
        assert torch.equal(a, b)
    assert (got[0][1] == 0).all()
    if dtype is not torch.bfloat16:
        k, v = (
            t.float() * scale[n][..., None] if scale else t for t, n in ((k, "key_scale"), (v, "value_scale"))
        )
        check(got, q, k, v, is_causal=True, query_offset="end", seqused_k=lengths)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_properties(level, dtype):
    q, k, v = made((2, 4, 90, 40), (2, 2, 190, 40), (2, 2, 190, 40), dtype=dtype)
    close = {"rtol": 2e-6, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    with cpu_level(level):
        plain = attention(q, k, v, enable_gqa=True)
        wide_window = attention(q, k, v, enable_gqa=True, window=(190, 190), query_offset=100)
        causal = attention(q, k, v, enable_gqa=True, is_causal=True)
        window = attention(q, k, v, enable_gqa=True, window=(-1, 0))
        order = torch.randperm(190, generator=torch.Generator().manual_seed(0))
        permuted = attention(q, k[:, :, order], v[:, :, order], enable_gqa=True)
        seen = torch.arange(190) < 120
        short = attention(q, k[:, :, :120], v[:, :, :120], enable_gqa=True)
        padded = attention(q, k, v, enable_gqa=True, key_mask=seen.expand(2, 190))
        masked = attention(q, k, v, seen, enable_gqa=True)
        triangle = attention(q, k, v, torch.ones(90, 190, dtype=torch.bool).tril(), enable_gqa=True)
    assert torch.equal(plain, wide_window)
    assert torch.equal(causal, window)
    assert torch.equal(padded, masked)
    for a, b in ((permuted, plain), (masked, short), (triangle, causal)):
        torch.testing.assert_close(a, b, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_on_any_thread_count(dtype):
    q, k, v = made((1, 8, 150, 64), (1, 2, 300, 64), (1, 2, 300, 64), dtype=dtype)
    results = []
    for threads in (1, 2):
        _core.set_num_threads(threads)
        try:
            results.append(
                attention(q, k, v, None, 0.1, seed=1, enable_gqa=True, window=(99, 0), return_lse=True)
            )
        finally:
            _core.set_num_threads(0)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_outside_is_read(level, dtype, at_end, guarded):
    for heads, kv_heads, queries, keys, dim in [(3, 1, 19, 130, 33), (4, 2, 65, 7, 5), (1, 1, 20, 79, 65)]:
        q, k, v = made((1, heads, queries, dim), (1, kv_heads, keys, dim), (1, kv_heads, keys, dim))
        mask, bias = made((queries, keys), (heads, 1, keys), seed=1)
        seen, key_mask = mask > 0, bias[:1, 0] > 0
        options = {"enable_gqa": True, "window": (70, 50), "query_offset": "end"}
        if dtype is torch.int8:
            k, v = ((t * 40).clamp(-127, 127).to(dtype) for t in (k, v))
            options |= {n: torch.rand(1, kv_heads, keys) / 40 for n in ("key_scale", "value_scale")}
        else:
            q, k, v, mask, bias = (t.to(dtype) for t in (q, k, v, mask, bias))
        for each in (mask, seen):
            tensors = [q, k, v, each, bias, key_mask]
            safe = [guarded(t, at_end) for t in tensors]
            results = []
            with cpu_level(level):
                for a, b, c, m, extra, keys_seen in (tensors, safe):
                    results.append(attention(a, b, c, m, bias=extra, key_mask=keys_seen, **options))
            assert torch.equal(*results)

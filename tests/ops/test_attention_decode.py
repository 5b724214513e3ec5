"""Attention of few queries: every feature against the formula in float64, chunks against one another."""

import pytest
import torch
from tests.ops.attention_reference import check, features, made, naive, wide

from honed import _core, ops
from honed.testing import allowed_error, cpu_level

LEVELS = _core.usable_levels()
attention = ops.scaled_dot_product_attention


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "queries", "keys", "dim", "value_dim"),
    [
        (3, 3, 1, 301, 33, 33),
        (8, 2, 1, 129, 64, 64),
        (5, 1, 2, 128, 128, 20),
        (2, 2, 4, 517, 8, 300),
        (6, 2, 3, 20, 1, 7),
    ],
)
def test_every_feature(level, heads, kv_heads, queries, keys, dim, value_dim):
    q, k, v = made((3, heads, queries, dim), (3, kv_heads, keys, dim), (3, kv_heads, keys, value_dim))
    for name, options in features(3, heads, queries, keys).items():
        with cpu_level(level):
            got = attention(q, k, v, enable_gqa=True, return_lse=True, **options)
            again = attention(q, k, v, enable_gqa=True, **options)
        assert torch.equal(got[0], again), name
        check(got, q, k, v, **options)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(level, dtype):
    q, k, v = made((2, 4, 2, 72), (2, 2, 260, 72), (2, 2, 260, 72), dtype=dtype)
    for options in features(2, 4, 2, 260).values():
        options = {
            name: t.to(dtype) if isinstance(t, torch.Tensor) and t.is_floating_point() else t
            for name, t in options.items()
        }
        with cpu_level(level):
            got, _ = attention(q, k, v, enable_gqa=True, return_lse=True, **options)
        reference, _ = naive(q.double(), k.double(), v.double(), **wide(options))
        own, _ = naive(q, k, v, **options)
        assert got.dtype == dtype
        assert (got.double() - reference).abs().max().item() <= allowed_error(reference, own, dtype)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dim", [256, 320, 512, 511])
def test_large_heads(level, dim):
    q, k, v = made((1, 4, 3, dim), (1, 2, 200, dim), (1, 2, 200, dim))
    with cpu_level(level):
        check(attention(q, k, v, enable_gqa=True, return_lse=True), q, k, v)


@pytest.mark.parametrize("level", LEVELS)
def test_many_chunks_are_one(level):
    """The same keys in one chunk and, with keys that nobody sees between them, in many."""
    q, k, v = made((2, 4, 3, 32), (2, 2, 64, 32), (2, 2, 64, 32))
    wide_k, wide_v = made((2, 2, 1024, 32), (2, 2, 1024, 32), seed=1)
    at = torch.arange(64) * 16
    wide_k[:, :, at], wide_v[:, :, at] = k, v
    seen = torch.zeros(1024, dtype=torch.bool)
    seen[at] = True
    sinks = torch.tensor([0.5, -1.0, 3.0, 0.0])
    with cpu_level(level):
        one = attention(q, k, v, enable_gqa=True, sinks=sinks, return_lse=True)
        many = attention(q, wide_k, wide_v, seen, enable_gqa=True, sinks=sinks, return_lse=True)
    for a, b in zip(one, many, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("queries", [1, 3])
def test_int8_keys_and_values(level, queries):
    q, real_k, real_v = made((2, 4, queries, 48), (2, 2, 300, 48), (2, 2, 300, 48))
    scales = [t.abs().amax(-1) / 127 for t in (real_k, real_v)]
    k, v = ((t / s[..., None]).round().to(torch.int8) for t, s in zip((real_k, real_v), scales, strict=True))
    with cpu_level(level):
        got = attention(q, k, v, enable_gqa=True, key_scale=scales[0], value_scale=scales[1], return_lse=True)
    check(got, q, *(t.float() * s[..., None] for t, s in zip((k, v), scales, strict=True)))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("dtype", "page"), [(torch.float32, 16), (torch.float16, 5), (torch.float32, 80), (torch.int8, 16)]
)
def test_shuffled_pages_are_the_dense_cache(level, dtype, page):
    """Bit for bit; entries of the table beyond a sequence's length are never read."""
    q, k, v = made((3, 4, 2, 40), (3, 2, 240, 40), (3, 2, 240, 40))
    scale = {}
    if dtype is torch.int8:
        k, v = ((t * 40).clamp(-127, 127) for t in (k, v))
        scale = {"key_scale": torch.rand(3, 2, 240) / 40, "value_scale": torch.rand(3, 2, 240) / 40}
    k, v = k.to(dtype), v.to(dtype)
    lengths = torch.tensor([240, 0, 77])
    blocks = 240 // page
    order = torch.randperm(3 * blocks, generator=torch.Generator().manual_seed(1))

    def paged(t):
        pages = torch.zeros(3 * blocks, 2, page, *t.shape[3:], dtype=t.dtype)
        for b in range(3):
            for i in range(blocks):
                pages[order[b * blocks + i]] = t[b, :, i * page : (i + 1) * page]
        return pages

    table = order.reshape(3, blocks).int()
    for b, length in enumerate(lengths.tolist()):
        table[b, -(-length // page) :] = -1
    options = {
        "enable_gqa": True,
        "is_causal": True,
        "query_offset": "end",
        "return_lse": True,
        "seqused_k": lengths,
    }
    with cpu_level(level):
        dense = attention(q, k, v, **scale, **options)
        got = attention(
            q, paged(k), paged(v), **{n: paged(t) for n, t in scale.items()}, block_table=table, **options
        )
    for a, b in zip(got, dense, strict=True):
        assert torch.equal(a, b)
    assert (got[0][1] == 0).all()


@pytest.mark.parametrize("level", LEVELS)
def test_sequences_of_their_own_lengths_are_the_separate_calls(level):
    starts_q, starts_k = [0, 2, 2, 5, 6], [0, 140, 150, 153, 453]
    q, k, v = made((4, 6, 24), (2, 453, 24), (2, 453, 24))
    slopes = made((4, 4))[0].abs()
    options = {"enable_gqa": True, "return_lse": True, "window": (90, 0), "query_offset": "end"}
    with cpu_level(level):
        got = attention(
            q, k, v, cu_seqlens_q=torch.tensor(starts_q, dtype=torch.int32),
            cu_seqlens_k=torch.tensor(starts_k), alibi_slopes=slopes, **options,
        )  # fmt: skip
        for b in range(4):
            of_q, of_k = slice(*starts_q[b : b + 2]), slice(*starts_k[b : b + 2])
            one = attention(q[:, of_q], k[:, of_k], v[:, of_k], alibi_slopes=slopes[b], **options)
            assert torch.equal(got[0][:, of_q], one[0])
            assert torch.equal(got[1][:, of_q], one[1])


@pytest.mark.parametrize("level", LEVELS)
def test_one_query_a_sequence_over_pages(level):
    """The layout of a server's step: (sequences, H, D) queries, pages, lengths."""
    q = made((4, 6, 24))[0].transpose(0, 1)
    k, v = made((9, 2, 8, 24), (9, 2, 8, 24), seed=1)
    table = torch.tensor([[3, 8, 0], [1, -1, -1], [7, 2, -1], [6, 5, 4]])
    lengths = torch.tensor([20, 8, 9, 24])
    with cpu_level(level):
        got = attention(
            q, k, v, enable_gqa=True, cu_seqlens_q=torch.arange(5), block_table=table, seqused_k=lengths,
        )  # fmt: skip
    for b in range(4):
        of_k, of_v = (
            t[table[b].clamp_min(0)].transpose(0, 1).flatten(1, 2)[None, :, : lengths[b]] for t in (k, v)
        )
        reference, _ = naive(q[None, :, b : b + 1].double(), of_k.double(), of_v.double())
        own, _ = naive(q[None, :, b : b + 1], of_k, of_v)
        assert (got[None, :, b : b + 1].double() - reference).abs().max() <= allowed_error(
            reference, own, q.dtype
        )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("queries", [1, 4])
def test_properties(level, queries):
    q, k, v = made((2, 4, queries, 40), (2, 2, 333, 40), (2, 2, 333, 40))
    with cpu_level(level):
        plain = attention(q, k, v, enable_gqa=True)
        wide_window = attention(q, k, v, enable_gqa=True, window=(333, 333), query_offset=100)
        causal = attention(q, k, v, enable_gqa=True, is_causal=True)
        window = attention(q, k, v, enable_gqa=True, window=(-1, 0))
        order = torch.randperm(333, generator=torch.Generator().manual_seed(0))
        permuted = attention(q, k[:, :, order], v[:, :, order], enable_gqa=True)
        hidden = torch.zeros(333)
        hidden[200:] = -torch.inf
        short = attention(q, k[:, :, :200], v[:, :, :200], enable_gqa=True)
        masked = attention(q, k, v, hidden, enable_gqa=True)
    assert torch.equal(plain, wide_window)
    assert torch.equal(causal, window)
    torch.testing.assert_close(permuted, plain, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(masked, short, rtol=2e-6, atol=2e-6)


def test_same_bits_on_any_thread_count():
    q, k, v = made((1, 8, 2, 64), (1, 2, 3000, 64), (1, 2, 3000, 64))
    results = []
    for threads in (1, 2):
        _core.set_num_threads(threads)
        try:
            results.append(
                attention(q, k, v, enable_gqa=True, window=(2000, 0), query_offset="end", return_lse=True)
            )
        finally:
            _core.set_num_threads(0)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_outside_is_read(dtype, at_end, guarded):
    for heads, kv_heads, queries, keys, dim in [
        (3, 1, 1, 130, 33),
        (4, 2, 2, 7, 5),
        (1, 1, 3, 129, 65),
        (8, 1, 1, 257, 17),
    ]:
        q, k, v = made((1, heads, queries, dim), (1, kv_heads, keys, dim), (1, kv_heads, keys, dim))
        mask, bias = made((queries, keys), (heads, 1, keys), seed=1)
        scale = {}
        if dtype is torch.int8:
            scale = {n: guarded(torch.rand(1, kv_heads, keys), at_end) for n in ("key_scale", "value_scale")}
        options = {"attn_mask": mask, "bias": bias, "sinks": torch.rand(heads)}
        options["key_mask"] = torch.ones(1, keys, dtype=torch.bool)
        options = {name: guarded(t, at_end) for name, t in options.items()}
        for level in LEVELS:
            with cpu_level(level):
                got = attention(
                    guarded(q, at_end), guarded(k.to(dtype), at_end), guarded(v.to(dtype), at_end),
                    enable_gqa=True, **scale, **options,
                )  # fmt: skip
            assert got.isfinite().all()


def test_float64():
    """Many queries too; dropout keeps what the other types keep."""
    for queries in (1, 50):
        q, k, v = made((3, 4, queries, 40), (3, 2, 150, 40), (3, 2, 150, 30), dtype=torch.float64)
        for name, options in features(3, 4, queries, 150).items():
            got = attention(q, k, v, enable_gqa=True, return_lse=True, **wide(options))
            for result, reference in zip(got, naive(q, k, v, **wide(options)), strict=True):
                assert result.dtype == torch.float64
                torch.testing.assert_close(result, reference, rtol=1e-12, atol=1e-12, msg=name)


def test_dropout():
    q, k, v = made((2, 4, 30, 16), (2, 4, 150, 16), (2, 4, 150, 16))
    eye = torch.eye(150).expand(2, 4, 150, 150)  # the result is the weights
    whole = attention(q, k, eye)
    kept = attention(q, k, eye, dropout_p=0.3, seed=5)
    dropped = kept == 0
    assert 0.28 < dropped.float().mean() < 0.32
    torch.testing.assert_close(kept[~dropped], whole[~dropped] / 0.7, rtol=1e-5, atol=1e-7)
    assert torch.equal(kept, attention(q, k, eye, dropout_p=0.3, seed=5))
    assert not torch.equal(kept, attention(q, k, eye, dropout_p=0.3, seed=6))
    wide_kept = attention(q.double(), k.double(), eye.double(), dropout_p=0.3, seed=5)
    assert torch.equal(wide_kept == 0, dropped)
    torch.manual_seed(3)
    first = attention(q, k, v, dropout_p=0.3)
    second = attention(q, k, v, dropout_p=0.3)
    torch.manual_seed(3)
    assert torch.equal(first, attention(q, k, v, dropout_p=0.3))
    assert not torch.equal(first, second)
    assert (attention(q, k, v, dropout_p=1.0) == 0).all()
    assert attention(q[:, :, :1], k, v, dropout_p=0.5, seed=1).shape == (2, 4, 1, 16)


def test_objects_of_torchs_bias_module():
    from torch.nn.attention.bias import causal_lower_right, causal_upper_left

    q, k, v = made((2, 4, 3, 16), (2, 4, 50, 16), (2, 4, 50, 16))
    assert torch.equal(attention(q, k, v, causal_upper_left(3, 50)), attention(q, k, v, is_causal=True))
    lower = attention(q, k, v, is_causal=True, query_offset="end")
    assert torch.equal(attention(q, k, v, causal_lower_right(3, 50)), lower)
    with pytest.raises(ValueError, match=r"T and S are \[3, 50\], expected attn_mask's \[4, 50\]"):
        attention(q, k, v, causal_lower_right(4, 50))


def test_autocast():
    q, k, v = made((2, 4, 1, 16), (2, 4, 50, 16), (2, 4, 50, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention(q, k, v).dtype == torch.bfloat16
        assert attention(q, k, v, window=(3, 0)).dtype == torch.bfloat16
        assert attention(q.double(), k.double(), v.double()).dtype == torch.float64


def test_composition_where_the_kernel_does_not_reach():
    """Gradients of honed's own arguments, heads over 512 elements."""
    q, k, v = (
        t.requires_grad_() for t in made((3, 4, 2, 24), (3, 2, 60, 24), (3, 2, 60, 24), dtype=torch.float64)
    )
    for name, options in features(3, 4, 2, 60).items():
        got = attention(q, k, v, enable_gqa=True, return_lse=True, **wide(options))
        assert got[0].requires_grad
        for result, reference in zip(got, naive(q, k, v, **wide(options)), strict=True):
            torch.testing.assert_close(result, reference, rtol=1e-9, atol=1e-9, msg=name)
        got[0].sum().backward()
        assert q.grad.isfinite().all() and k.grad.isfinite().all(), name
    big = made((1, 2, 3, 600), (1, 2, 40, 600), (1, 2, 40, 600))
    for options in ({"window": (5, 1)}, {"attn_mask": torch.full((40,), torch.finfo(torch.float32).min)}):
        check(attention(*big, return_lse=True, **options), *big, **options)


def test_errors():
    q, k, v = made((2, 4, 1, 16), (2, 4, 9, 16), (2, 4, 9, 16))
    one = torch.tensor
    cases = [
        (r"window is \(1,\), expected \(left, right\)", {"window": (1,)}),
        (r"window is \(-2, 0\), expected", {"window": (-2, 0)}),
        (r"window is 0, expected \(left, right\)", {"window": 0}),
        (r"window is \(\), expected \(left, right\)", {"window": ()}),
        (r"window is \(1.5, 0\), expected", {"window": (1.5, 0)}),
        (r"window is '12', expected", {"window": "12"}),
        (r"query_offset is 'start', expected", {"query_offset": "start"}),
        (r"bias is bool", {"bias": torch.ones(9, dtype=torch.bool)}),
        (r"bias has shape \[2, 9\], expected it to broadcast to \[2, 4, 1, 9\]", {"bias": torch.ones(2, 9)}),
        (r"sinks has shape \[3\], expected \[4\]", {"sinks": torch.ones(3)}),
        (r"alibi_slopes has shape \[2, 3\]", {"alibi_slopes": torch.ones(2, 3)}),
        (r"seqused_k is 10 at 1, expected 0 to 9", {"seqused_k": one([9, 10])}),
        (r"seqused_k is -1 at 0, expected 0 to 9", {"seqused_k": one([-1, 9])}),
        (r"seqused_k is float32", {"seqused_k": torch.ones(2)}),
        (r"seqused_k has shape \[3\], expected \[2\]", {"seqused_k": one([1, 2, 3])}),
        (
            r"cu_seqlens_q is given and the tensor it divides has shape \[2, 4, 1, 16\]",
            {"cu_seqlens_q": one([0, 1])},
        ),
        (r"key_scale is given and key and value are float32", {"key_scale": torch.ones(2, 4, 9)}),
        (r"block_table is 7 at \(0, 0\), expected 0 to 1", {"block_table": one([[7], [0]])}),
        (r"block_table is -1 at \(1, 0\), expected 0 to 1", {"block_table": one([[1], [-1]])}),
        (r"dropout_p is 1.5, expected 0 to 1", {"dropout_p": 1.5}),
        (r"seed is -1, expected", {"seed": -1, "dropout_p": 0.5}),
    ]
    for message, options in cases:
        with pytest.raises((ValueError, TypeError), match=message):
            attention(q, k, v, **options)
    flat = made((4, 5, 16))[0]
    for message, starts in [
        (r"cu_seqlens_q goes from 0 to 4, expected 0 to 5", [0, 2, 4]),
        (r"cu_seqlens_q goes from 3 to 2 at 1, expected that it never falls", [0, 3, 2, 5]),
        (r"cu_seqlens_q goes from 1 to 5, expected 0 to 5", [1, 5]),
        (r"1 sequences of keys and 2 of queries", [0, 2, 5]),
    ]:
        with pytest.raises(ValueError, match=message):
            attention(flat, flat, flat, cu_seqlens_q=one(starts))
    with pytest.raises(ValueError, match="4 query heads over 2 key heads, expected enable_gqa=True"):
        attention(q, k[:, :2], v[:, :2], window=(3, 3))
    with pytest.raises(ValueError, match="key_scale is missing and key and value are int8"):
        attention(q, k.to(torch.int8), v.to(torch.int8), window=(3, 3))
    with pytest.raises(ValueError, match="got dropout_p and no seed"):
        attention(q.numpy(), k.numpy(), v.numpy(), dropout_p=0.5)

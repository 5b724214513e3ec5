"""What the specification cannot say: paths against each other, mixed types, masks of the engine, layouts."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from honed import _core, ops
from honed.testing import allowed_error, cpu_level

LEVELS = _core.usable_levels()
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def _made(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def _call(q, k, v, mask=None, *, causal=False, causal_offset=0, **options):
    return ops.scaled_dot_product_attention(
        q,
        k,
        v,
        mask,
        enable_gqa=True,
        window=(-1, 0) if causal else None,
        query_offset=causal_offset,
        **options,
    )


def naive(q, k, v, *, scale=None, mask=None, seen=None, softcap=0.0):
    """The formula, in the operands' type. ``seen`` broadcasts to (B,H,T,S)."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1).nan_to_num(0) @ v


def assert_close(got, q, k, v, **options):
    """Within twice the error of the same formula in the operands' own type."""
    wide = {
        name: t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t
        for name, t in options.items()
    }
    reference = naive(q.double(), k.double(), v.double(), **wide)
    own = naive(q, k.to(q.dtype), v.to(q.dtype), **options)
    error = (got.double() - reference).abs().max().item()
    assert error <= allowed_error(reference, own, q.dtype), error


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "keys"), [(3, 3, 33, 500), (8, 2, 64, 129), (5, 1, 128, 128)]
)
def test_few_queries_give_what_many_give(level, dtype, heads, kv_heads, dim, keys):
    """The same query alone (chunks of keys, merged) and among many (blocks of keys, online)."""
    q, k, v = _made((2, heads, 13, dim), (2, kv_heads, keys, dim), (2, kv_heads, keys, dim), dtype=dtype)
    with cpu_level(level):
        assert_close(_call(q, k, v), q, k, v)
        for first, last in [(0, 1), (1, 3), (1, 4), (1, 5)]:
            assert_close(_call(q[:, :, first:last], k, v), q[:, :, first:last], k, v)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cache", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("queries", [1, 3, 50])
def test_half_precision_cache_under_a_float32_query(level, cache, queries):
    (q,) = _made((2, 6, queries, 40))
    k, v = _made((2, 2, 203, 40), (2, 2, 203, 40), dtype=cache, seed=1)
    with cpu_level(level):
        got = _call(q, k, v)
        widened = _call(q, k.float(), v.float())
    assert got.dtype == torch.float32
    assert torch.equal(got, widened)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("queries", "keys"), [(1, 300), (3, 130), (4, 4), (17, 150), (70, 70), (9, 5)])
def test_causal_offset(level, queries, keys):
    """With a cache, the last query sees every key; a negative offset leaves early queries without any."""
    q, k, v = _made((2, 4, queries, 16), (2, 2, keys, 16), (2, 2, keys, 16))
    for offset in (keys - queries, -2, 1):
        seen = torch.arange(keys) <= torch.arange(queries)[:, None] + offset
        with cpu_level(level):
            got = _call(q, k, v, causal=True, causal_offset=offset)
        assert_close(got, q, k, v, seen=seen)
        assert (got[:, :, ~seen.any(-1)] == 0).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("queries", [1, 4, 70])
def test_softcap_comes_before_the_mask(level, queries):
    q, k, v, mask = _made((2, 4, queries, 32), (2, 2, 133, 32), (2, 2, 133, 32), (queries, 133))
    with cpu_level(level):
        got = _call(q * 4, k, v, mask * 3, scale=0.5, softcap=2.0)
    assert_close(got, q * 4, k, v, mask=mask * 3, scale=0.5, softcap=2.0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("queries", [1, 2, 90])
def test_key_mask(level, queries):
    """Left padding over more than a block, holes, and a row of the batch without a key."""
    q, k, v = _made((4, 4, queries, 24), (4, 2, 290, 24), (4, 2, 290, 24))
    seen = torch.rand(4, 290, generator=torch.Generator().manual_seed(2)) > 0.3
    seen[1, :200] = False
    seen[2] = False
    with cpu_level(level):
        got = _call(q, k, v, key_mask=seen)
        wide = torch.zeros(4, 300, dtype=torch.bool)
        wide[:, :290] = seen
        assert torch.equal(got, _call(q, k, v, key_mask=wide[:, :290]))
    assert_close(got, q, k, v, seen=seen[:, None, None])
    assert (got[2] == 0).all()


def test_key_mask_and_causal_together():
    q, k, v = _made((2, 4, 80, 24), (2, 2, 80, 24), (2, 2, 80, 24))
    padded = torch.arange(80) >= torch.tensor([[70], [3]])
    got = _call(q, k, v, causal=True, key_mask=padded)
    assert_close(got, q, k, v, seen=padded[:, None, None] & torch.ones(80, 80).tril().bool())


@pytest.mark.parametrize("queries", [1, 4, 33])
def test_views_of_the_model_layout(queries):
    """(B,T,H,D) memory, a cache with room to spare, an expanded head: read in place, same bits."""
    q, k, v = _made((2, queries, 6, 32), (2, 3, 80, 32), (2, 3, 80, 32))
    got = ops.scaled_dot_product_attention(q.transpose(1, 2), k[:, :, :70], v[:, :, :70], enable_gqa=True)
    plain = ops.scaled_dot_product_attention(
        q.transpose(1, 2).contiguous(), k[:, :, :70].contiguous(), v[:, :, :70].contiguous(), enable_gqa=True
    )
    assert torch.equal(got, plain)
    assert got.transpose(1, 2).is_contiguous()
    one = ops.scaled_dot_product_attention(
        q.transpose(1, 2), k[:, :1].expand(2, 6, 80, 32), v[:, :1].expand(2, 6, 80, 32)
    )
    shared = ops.scaled_dot_product_attention(q.transpose(1, 2), k[:, :1], v[:, :1], enable_gqa=True)
    assert torch.allclose(one, shared, atol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_masks_of_every_broadcast(level):
    q, k, v = _made((2, 3, 66, 16), (2, 3, 75, 16), (2, 3, 75, 16))
    for shape in [
        (75,),
        (66, 1),
        (66, 75),
        (1, 75),
        (3, 66, 75),
        (2, 1, 1, 75),
        (2, 3, 1, 1),
        (1, 1, 66, 75),
    ]:
        (mask,) = _made(shape, seed=3)
        with cpu_level(level):
            assert_close(ops.scaled_dot_product_attention(q, k, v, mask), q, k, v, mask=mask)
            assert_close(ops.scaled_dot_product_attention(q, k, v, mask > -1), q, k, v, seen=mask > -1)
            assert_close(
                ops.scaled_dot_product_attention(
                    q, k, v, mask.mT.contiguous().mT if mask.dim() > 1 else mask
                ),
                q,
                k,
                v,
                mask=mask,
            )


@pytest.mark.parametrize("level", LEVELS)
def test_causal_as_a_boolean_mask(level):
    """Whole blocks of it are hidden from some rows and not from others."""
    q, k, v = _made((2, 3, 150, 16), (2, 3, 150, 16), (2, 3, 150, 16))
    seen = torch.ones(150, 150, dtype=torch.bool).tril(-10)
    with cpu_level(level):
        causal = _call(q, k, v, causal=True, causal_offset=-10)
        masked = ops.scaled_dot_product_attention(q, k, v, seen)
    assert torch.equal(masked, causal)
    assert_close(masked, q, k, v, seen=seen)


@pytest.mark.parametrize("queries", [2, 40])
def test_lowest_finite_mask_is_a_mask_and_not_nothing(queries):
    """finfo.min everywhere gives the mean of the values, as in torch; -inf everywhere gives 0."""
    q, k, v = _made((1, 2, queries, 16), (1, 2, 150, 16), (1, 2, 150, 16))
    mask = torch.full((queries, 150), torch.finfo(torch.float32).min)
    torch.testing.assert_close(
        ops.scaled_dot_product_attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask)
    )
    assert (ops.scaled_dot_product_attention(q, k, v, mask * 2) == 0).all()


@pytest.mark.parametrize("queries", [2, 40])
def test_nan_stays_in_its_row(queries):
    q, k, v = _made((1, 2, queries, 16), (1, 2, 150, 16), (1, 2, 150, 16))
    q[0, 1, 1, 3] = torch.nan
    got = ops.scaled_dot_product_attention(q, k, v)
    assert got[0, 1, 1].isnan().all()
    assert got.isnan().sum() == 16


def test_large_scores_do_not_overflow():
    q, k, v = _made((1, 1, 40, 16), (1, 1, 90, 16), (1, 1, 90, 16))
    assert_close(ops.scaled_dot_product_attention(q * 300, k * 300, v), q * 300, k * 300, v)


def test_fewer_dimensions():
    q, k, v = _made((3, 20, 16), (3, 30, 16), (3, 30, 8))
    mask = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(1)) > 0.3
    own = F.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(ops.scaled_dot_product_attention(q, k, v, mask), own)
    torch.testing.assert_close(ops.scaled_dot_product_attention(q[1], k[1], v[1], mask[1]), own[1])


def test_numpy():
    q, k, v = _made((1, 2, 20, 16), (1, 2, 30, 16), (1, 2, 30, 16))
    got = ops.scaled_dot_product_attention(q.numpy(), k.numpy(), v.numpy())
    assert isinstance(got, np.ndarray)
    assert np.array_equal(got, ops.scaled_dot_product_attention(q, k, v).numpy())


def test_what_goes_to_torch(monkeypatch):
    """Gradients, large heads, broadcast batches, tensors of two types."""
    q, k, v = _made((2, 2, 6, 16), (2, 2, 7, 16), (2, 2, 7, 16))
    monkeypatch.setattr(_core, "scaled_dot_product_attention", lambda *a: pytest.fail("the kernel ran"))
    leaf = q.clone().requires_grad_()
    ops.scaled_dot_product_attention(leaf, k, v).sum().backward()
    assert leaf.grad is not None
    mask = torch.zeros(6, 7, requires_grad=True)
    assert ops.scaled_dot_product_attention(q, k, v, mask).requires_grad
    big = torch.randn(1, 1, 3, 513)
    assert ops.scaled_dot_product_attention(big, big, big).shape == big.shape
    assert ops.scaled_dot_product_attention(q, k[:1], v[:1]).shape == q.shape
    with pytest.raises(RuntimeError):  # heads differ, and enable_gqa was not asked for: torch's own refusal
        ops.scaled_dot_product_attention(q, torch.randn(2, 3, 7, 16), torch.randn(2, 3, 7, 16))


def test_refusals():
    q, k, v = _made((2, 4, 6, 16), (2, 2, 7, 16), (2, 2, 7, 16))
    with pytest.raises(ValueError, match="attn_mask and is_causal"):
        ops.scaled_dot_product_attention(q, q, q, torch.zeros(6, 6), is_causal=True)
    with pytest.raises(ValueError, match=r"mask has shape \[5, 7\], expected it to broadcast"):
        ops.scaled_dot_product_attention(q, k, v, torch.zeros(5, 7), enable_gqa=True)
    with pytest.raises(ValueError, match="4 query heads over 3 key heads"):
        _call(q, torch.randn(2, 3, 7, 16), torch.randn(2, 3, 7, 16))
    with pytest.raises(ValueError, match=r"expected \(B,H,T,D\)"):
        _call(q, k[..., :8], v)
    with pytest.raises(ValueError, match="head sizes 600 and 600, expected at most 512"):
        ops.scaled_dot_product_attention(*[np.zeros((1, 1, 2, 600), np.float32)] * 3)
    with pytest.raises(ValueError, match=r"key_mask has shape \[2, 6\], expected \[2, 7\]"):
        _call(q, k, v, key_mask=torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(TypeError, match="key is float32"):
        _call(q.half(), k, v)
    with pytest.raises(TypeError, match="query is int32"):
        ops.scaled_dot_product_attention(*(np.zeros((1, 1, 2, 4), np.int32) for _ in range(3)))

"""Gradients of attention: every option, layout and level against float64; determinism; memory."""

import subprocess
import sys

import pytest
import torch

import honed
from honed import _core, ops
from honed.testing import allowed_error, cpu_level

REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SEED = 987654321987


def _kept(rows, columns, p):
    """What dropout keeps, by the definition in csrc/core/rng.h."""
    low, high = (1 << 32) - 1, (1 << 64) - 1

    def mix(x):
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & high
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & high
        return x ^ x >> 31

    golden = 0x9E3779B97F4A7C15
    keys = [mix((mix((SEED + golden) & high) + (row + 1) * golden) & high) for row in range(rows)]
    key_low, key_high = (torch.tensor([key >> by & low for key in keys])[:, None] for by in (0, 32))
    x = (torch.arange(columns) + key_low) & low
    x = (x ^ x >> 16) * 0x7FEB352D & low
    x = (x ^ x >> 15 ^ key_high) * 0x846CA68B & low
    return (x ^ x >> 16) >= int(p * 2**32)


def _attention(q, k, v, bias=None, sinks=None, *, attn_mask=None, window=(-1, -1), query_offset=0,
               softcap=0.0, alibi_slopes=None, key_mask=None, dropout_p=0.0):  # fmt: skip
    """The formula, in the operands' type: the result and lse."""
    (batch, heads, queries, size), keys = q.shape, k.shape[2]
    k, v = (t.repeat_interleave(heads // k.shape[1], 1) for t in (k, v))
    scores = q @ k.mT * size**-0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    ahead = torch.arange(keys) - torch.arange(queries)[:, None] - query_offset
    seen = torch.ones_like(ahead, dtype=torch.bool)
    if window[0] >= 0:
        seen = seen & (ahead >= -window[0])
    if window[1] >= 0:
        seen = seen & (ahead <= window[1])
    if key_mask is not None:
        seen = seen & key_mask[:, None, None]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        seen = seen & attn_mask
    elif attn_mask is not None:
        scores = scores + attn_mask
    if bias is not None:
        scores = scores + bias
    if alibi_slopes is not None:
        scores = scores - alibi_slopes.reshape(-1, heads, 1, 1) * ahead.abs()
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(batch, heads, queries, 1)], -1)
    nothing = (scores == -torch.inf).all(-1, keepdim=True)
    scores = scores.masked_fill(nothing, 0)
    lse = scores.logsumexp(-1, keepdim=True)
    weights = (scores - lse).exp()[..., :keys].masked_fill(nothing, 0)
    if dropout_p:
        weights = weights * _kept(batch * heads * queries, keys, dropout_p).view_as(weights) / (1 - dropout_p)
    return weights @ v, lse.masked_fill(nothing, 0)[..., 0]


def _honed(q, k, v, bias=None, sinks=None, **options):
    out, lse = ops.scaled_dot_product_attention(
        q, k, v, bias=bias, sinks=sinks, enable_gqa=True, return_lse=True, seed=SEED, **options
    )
    return out, lse.masked_fill(lse == -torch.inf, 0)


def _leaves(tensors, dtype):
    return [None if t is None else t.detach().to(dtype).requires_grad_() for t in tensors]


def _gradients(function, tensors, dout, dlse, **options):
    out, lse = function(*tensors, **options)
    total = (out * dout.to(out.dtype)).sum()
    if dlse is not None:
        total = total + (lse * dlse.to(lse.dtype)).sum()
    given = [t for t in tensors if t is not None]
    return torch.autograd.grad(total, given, allow_unused=True)


def _compare(tensors, dtype, *, dlse=False, level="", **options):
    """Ours within twice the error of the same formula in the operands' own type."""
    tensors = [None if t is None else t.to(dtype) for t in tensors]
    cast = {n: t.to(dtype) if torch.is_tensor(t) and t.is_floating_point() else t for n, t in options.items()}
    wide = {n: t.double() if torch.is_tensor(t) and t.is_floating_point() else t for n, t in cast.items()}
    q, v = tensors[0], tensors[2]
    dout = torch.randn(*q.shape[:3], v.shape[3]).to(dtype)
    dlse = torch.randn(q.shape[:3]) if dlse else None
    with cpu_level(level or _core.level()):
        got = _gradients(_honed, _leaves(tensors, dtype), dout, dlse, **cast)
    own = _gradients(_attention, _leaves(tensors, dtype), dout, dlse, **cast)
    reference = _gradients(_attention, _leaves(tensors, torch.float64), dout, dlse, **wide)
    # Rounding of the terms that cancel: a weight times (dout . value - dout . out) times a query or key. The
    # reference of float64 has that type's rounding itself: that of a sum as long as the longest.
    k = tensors[1]
    products = (dout.double() @ v.double().repeat_interleave(q.shape[1] // v.shape[1], 1).mT).abs().max()
    term = products * max(q.abs().max(), k.abs().max()).double() * q.shape[-1] ** -0.5
    largest = max(term.item(), *(g.abs().max().item() for g in reference if g.numel()))
    eps, terms = (2.0**-52, max(*q.shape, *k.shape)) if dtype == torch.float64 else (2.0**-23, 4)
    rounding = eps * terms * largest
    for i, (a, b, c) in enumerate(zip(got, own, reference, strict=True)):
        assert a.dtype == dtype and a.shape == c.shape
        error = (a.double() - c).abs().max().item() if c.numel() else 0.0
        assert error <= allowed_error(c, b, dtype) + rounding, (i, error)


def _made(b, h, kv, t, s, d, dv, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(b, h, t, d), torch.randn(b, kv, s, d), torch.randn(b, kv, s, dv)]


SHAPES = [
    (2, 4, 2, 37, 70, 16, 8),
    (1, 6, 2, 130, 90, 64, 64),
    (2, 2, 2, 5, 7, 33, 80),
    (1, 2, 1, 70, 600, 32, 40),
]


def _options(b, h, t, s):
    """Name: the options, after the bias's shape and whether there are sinks."""
    return {
        "plain": (None, False, {}),
        "causal": (None, False, {"window": (-1, 0)}),
        "window": (None, False, {"window": (7, 3), "query_offset": 2}),
        "from_the_end": (None, False, {"window": (40, 0), "query_offset": s - t}),
        "softcap": (None, False, {"softcap": 2.0}),
        "alibi": (None, False, {"alibi_slopes": torch.rand(h)}),
        "sinks": (None, True, {}),
        "dropout": (None, False, {"dropout_p": 0.25}),
        "bool_mask": (None, False, {"attn_mask": torch.rand(b, 1, t, s) > 0.3}),
        "float_mask": (None, False, {"attn_mask": torch.randn(t, s)}),
        "key_mask": (None, False, {"key_mask": torch.rand(b, s) > 0.3}),
        "lse": (None, False, {"dlse": True}),
        "bias": ((b, h, t, s), False, {}),
        "bias_heads": ((h, t, s), False, {"window": (-1, 0)}),
        "bias_keys": ((b, 1, 1, s), False, {}),
        "all": (
            (1, h, t, s),
            True,
            {
                "window": (-1, 0),
                "softcap": 3.0,
                "dropout_p": 0.25,
                "alibi_slopes": torch.rand(h),
                "dlse": True,
            },
        ),
    }


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", list(_options(1, 1, 1, 1)))
def test_gradients(name, dtype):
    for shape in SHAPES:
        b, h, _, t, s, _, _ = shape
        tensors = _made(*shape)
        bias, sinks, options = _options(b, h, t, s)[name]
        tensors += [None if bias is None else torch.randn(bias), torch.randn(h) if sinks else None]
        _compare(tensors, dtype, **options)


@pytest.mark.parametrize("level", _core.usable_levels())
def test_levels(level):
    for shape in SHAPES:
        b, h, _, t, s, _, _ = shape
        tensors = [*_made(*shape), torch.randn(1, h, t, s), torch.randn(h)]
        options = _options(b, h, t, s)["all"][2]
        _compare(tensors, torch.float32, level=level, **options)
        _compare(tensors[:3], torch.bfloat16, level=level, window=(-1, 0))


def test_finite_differences():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, n, m, 3, dtype=torch.float64) for n, m in ((2, 3), (1, 4), (1, 4)))
    bias, sinks = torch.randn(2, 1, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)

    def run(*tensors):
        return _honed(*tensors, softcap=2.0, window=(-1, 1), dropout_p=0.25)

    tensors = [t.requires_grad_() for t in (q, k, v, bias, sinks)]
    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


@pytest.mark.parametrize("heads", [(1, 1), (3, 1), (8, 8)])
def test_any_number_of_threads_gives_the_same_bits(heads):
    tensors = [*_made(1, *heads, 300, 700, 64, 64), torch.randn(1, 1, 300, 700)]
    dout = torch.randn(1, heads[0], 300, 64)
    found = []
    try:
        for threads in (1, 2):
            honed.set_num_threads(threads)
            found.append(_gradients(_honed, _leaves(tensors, torch.float32), dout, None, dropout_p=0.1))
    finally:
        honed.set_num_threads(0)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_layouts():
    """Heads as views of (B,T,H,D): the gradients lie as they do. A gradient that was expanded."""
    torch.manual_seed(0)
    base = [torch.randn(2, n, 4, 24) for n in (33, 45, 45)]
    want = _gradients(
        _honed, _leaves([t.transpose(1, 2).contiguous() for t in base], torch.float32), torch.ones(()), None
    )
    views = [t.clone().requires_grad_() for t in base]
    out, _ = _honed(*[t.transpose(1, 2) for t in views])
    got = torch.autograd.grad(out.sum(), views)
    assert all(
        torch.equal(a.transpose(1, 2), b) and a.is_contiguous() for a, b in zip(got, want, strict=True)
    )
    strided = [t.transpose(1, 2).mT.contiguous().mT.requires_grad_() for t in base]
    out, _ = _honed(*strided)
    assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(out.sum(), strided), want, strict=True))


@pytest.mark.parametrize("dims", [2, 3])
def test_fewer_dimensions(dims):
    tensors = [t[(0,) * (4 - dims)] for t in _made(1, 2, 2, 20, 30, 16, 16)]
    leaves = _leaves(tensors, torch.float64)
    out = ops.scaled_dot_product_attention(*leaves, is_causal=True)
    again = _leaves(tensors, torch.float64)
    want = torch.nn.functional.scaled_dot_product_attention(*again, is_causal=True)
    for a, b in zip(
        torch.autograd.grad(out.sum(), leaves), torch.autograd.grad(want.sum(), again), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(1, 2, 2, 0, 5), (1, 2, 2, 5, 0), (0, 2, 2, 5, 5), (1, 4, 2, 3, 0)])
def test_empty(shape, dtype):
    leaves = _leaves(_made(*shape, 16, 16), dtype)
    out, _ = _honed(*leaves)
    for gradient, leaf in zip(torch.autograd.grad(out.sum(), leaves), leaves, strict=True):
        assert gradient.shape == leaf.shape and not gradient.any()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(0, 3, 3, 5, 6), (1, 0, 3, 5, 6), (1, 3, 3, 0, 6), (1, 3, 3, 5, 0)])
def test_empty_with_everything(shape, dtype):
    """What is added up over nothing is 0, whatever its memory held before."""
    _, h, _, t, s = shape
    tensors = [*_made(*shape, 16, 16), torch.randn(h, t, s), torch.randn(h)]
    leaves = _leaves(tensors, dtype)
    out, _ = _honed(*leaves)
    before = [torch.full((n.numel(),), torch.nan, dtype=d)
              for _ in range(50) for n in tensors for d in (dtype, torch.float32)]  # fmt: skip
    del before
    for gradient, leaf in zip(torch.autograd.grad(out, leaves, torch.ones_like(out)), leaves, strict=True):
        assert gradient.shape == leaf.shape and not gradient.any()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("queries", [1, 40])
def test_a_sink_above_all_scores(dtype, queries):
    """Nothing reaches the values, nor comes back from them."""
    tensors = [*_made(1, 2, 2, queries, 50, 16, 16), torch.zeros(50), torch.tensor([1000.0, 0.0])]
    leaves = _leaves(tensors, dtype)
    out, _ = _honed(*leaves)
    for found in (out, *torch.autograd.grad(out.sum(), leaves)[:3]):
        assert not found[:, 0].any() and found[:, 1].any()


def test_not_a_number_reaches_the_sinks():
    for dtype in REAL:
        tensors = [*_made(1, 2, 2, 9, 12, 16, 16), None, torch.zeros(2)]
        tensors[0][0, 1, 3] = torch.nan
        leaves = _leaves(tensors, dtype)
        out, _ = _honed(*leaves)
        sinks = torch.autograd.grad(out.sum(), leaves[4])[0]
        assert sinks[0].isfinite() and sinks[1].isnan()


def test_second_derivatives_where_all_is_dropped():
    leaves = _leaves(_made(1, 2, 2, 5, 6, 8, 8), torch.float64)
    out, _ = _honed(*leaves, dropout_p=1.0)
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves, allow_unused=True)
    assert not any(g.any() for g in (*first, *second) if g is not None)


@pytest.mark.parametrize("dtype", REAL)
def test_a_query_that_sees_nothing_has_no_gradient(dtype):
    mask = torch.ones(70, 80, dtype=torch.bool)
    mask[3] = mask[66] = False
    mask[:, 11] = False
    leaves = _leaves(_made(1, 2, 1, 70, 80, 16, 16), dtype)
    out, _ = _honed(*leaves, attn_mask=mask)
    dq, dk, dv = torch.autograd.grad(out.sum(), leaves)
    assert all(g.isfinite().all() for g in (dq, dk, dv))
    assert not dq[:, :, [3, 66]].any() and not dk[:, :, 11].any() and not dv[:, :, 11].any()
    assert dq[:, :, 4].any() and dk[:, :, 12].any()


def test_only_what_is_wanted():
    tensors = [*_made(1, 2, 2, 40, 50, 16, 16), torch.randn(1, 2, 40, 50), torch.randn(2)]
    dout = torch.randn(1, 2, 40, 16)
    want = _gradients(_honed, _leaves(tensors, torch.float32), dout, None)
    for i, expected in enumerate(want):
        leaves = [t.clone().requires_grad_(i == j) for j, t in enumerate(tensors)]
        out, _ = _honed(*leaves)
        (out * dout).sum().backward()
        assert torch.equal(leaves[i].grad, expected)
        assert all(leaf.grad is None for j, leaf in enumerate(leaves) if j != i)


def test_a_mask_with_a_gradient():
    tensors = _made(1, 2, 2, 40, 50, 16, 16)
    results = []
    for name in ("attn_mask", "bias"):
        torch.manual_seed(1)
        mask = torch.randn(40, 50, requires_grad=True)
        out = ops.scaled_dot_product_attention(*tensors, **{name: mask})
        results.append(torch.autograd.grad(out.square().sum(), mask)[0])
    assert torch.equal(*results)


def test_sequences_of_their_own_lengths():
    """As each sequence alone."""
    q_starts, k_starts = torch.tensor([0, 5, 5, 78]), torch.tensor([0, 9, 12, 112])
    torch.manual_seed(0)
    leaves = _leaves([torch.randn(4, 78, 16), torch.randn(2, 112, 16), torch.randn(2, 112, 8)], torch.float32)
    options = {"window": (-1, 0), "query_offset": "end", "enable_gqa": True}
    out = ops.scaled_dot_product_attention(*leaves, cu_seqlens_q=q_starts, cu_seqlens_k=k_starts, **options)
    dout = torch.randn_like(out)
    got = torch.autograd.grad(out, leaves, dout)
    for b in range(3):
        rows = [slice(q_starts[b], q_starts[b + 1])] + [slice(k_starts[b], k_starts[b + 1])] * 2
        alone = [t[:, r].detach()[None].requires_grad_() for t, r in zip(leaves, rows, strict=True)]
        one = ops.scaled_dot_product_attention(*alone, **options)
        want = torch.autograd.grad(one, alone, dout[:, rows[0]][None])
        for a, r, c in zip(got, rows, want, strict=True):
            torch.testing.assert_close(a[:, r], c[0])


def test_keys_that_do_not_count_have_no_gradient():
    leaves = _leaves(_made(2, 2, 2, 10, 80, 16, 16), torch.float32)
    out = ops.scaled_dot_product_attention(*leaves, seqused_k=torch.tensor([70, 3]))
    _, dk, dv = torch.autograd.grad(out.sum(), leaves)
    for b, used in enumerate((70, 3)):
        assert not dk[b, :, used:].any() and not dv[b, :, used:].any()
        assert dk[b, :, :used].any() and dv[b, :, :used].all()


MEMORY = """
import resource, torch
from honed import ops
heads, length, size = 8, 2048, 64
q, k, v = (torch.randn(1, heads, length, size, requires_grad=True) for _ in range(3))
ops.scaled_dot_product_attention(q[:, :, :64], k[:, :, :64], v[:, :, :64], dropout_p=0.1).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ops.scaled_dot_product_attention(q, k, v, dropout_p=0.1).sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_does_not_grow_with_the_square():
    """Beside 7 tensors of the operands' size, and as much for the sums: an eighth of one (H,T,S)."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 8 * 2048 * 2048 * 4 / 8 + 10 * 8 * 2048 * 64 * 4

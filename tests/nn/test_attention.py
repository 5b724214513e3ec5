"""honed.nn.MultiheadAttention: torch's results for every argument, in every mode."""

import copy
import itertools
import pickle

import pytest
import torch
from tests.nn.conftest import agree, twins

import honed
from honed.nn import KeyValues, MultiheadAttention

F = torch.nn.functional
N, L, S, E, H = 3, 5, 7, 12, 4


def inputs(kind, batch_first, batched=True, kdim=E, vdim=E):
    """query, key, value: "self", "memory" (key is value) or "three" tensors."""
    generator = torch.Generator().manual_seed(1)

    def one(length, width):
        shape = (N, length, width) if batch_first else (length, N, width)
        return torch.randn(shape if batched else (length, width), generator=generator)

    q = one(L, E)
    if kind == "self":
        return q, q, q
    k = one(S, kdim)
    return q, k, k if kind == "memory" else one(S, vdim)


def masks(which, t, s, batched=True):
    generator = torch.Generator().manual_seed(2)
    hidden = torch.rand(t, s, generator=generator) > 0.6
    hidden[:, 0] = False
    every = torch.rand((N if batched else 1) * H, t, s, generator=generator) > 0.6
    every[:, :, 0] = False
    padding = torch.zeros(N, s, dtype=torch.bool)
    padding[0, s - 2 :] = padding[1, s - 1 :] = True
    padding = padding if batched else padding[0]
    float_padding = torch.zeros(padding.shape).masked_fill(padding, -torch.inf)
    return {
        "none": {},
        "2-D": {"attn_mask": hidden},
        "2-D float": {"attn_mask": torch.randn(t, s, generator=generator)},
        "3-D": {"attn_mask": every},
        "3-D float": {"attn_mask": torch.randn(every.shape, generator=generator)},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": hidden, "key_padding_mask": padding},
        "both float": {
            "attn_mask": torch.randn(t, s, generator=generator),
            "key_padding_mask": float_padding,
        },
    }[which]


KINDS = ["none", "2-D", "2-D float", "3-D", "3-D float", "padding", "both", "both float"]


@pytest.mark.parametrize("which", KINDS)
@pytest.mark.parametrize("kind", ["self", "memory", "three"])
def test_masks(which, kind):
    for batch_first, need_weights, gradients in itertools.product((True, False), repeat=3):
        plain, fast = twins("MultiheadAttention", E, H, batch_first=batch_first)
        given = masks(which, L, L if kind == "self" else S)
        agree(
            plain,
            fast,
            *inputs(kind, batch_first),
            need_weights=need_weights,
            gradients=gradients,
            **given,
        )


@pytest.mark.parametrize("which", ["none", "2-D", "3-D", "padding", "both"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_without_a_batch(which, batch_first):
    plain, fast = twins("MultiheadAttention", E, H, batch_first=batch_first)
    for kind, need_weights in itertools.product(("self", "three"), (True, False)):
        given = masks(which, L, L if kind == "self" else S, batched=False)
        agree(plain, fast, *inputs(kind, batch_first, False), need_weights=need_weights, **given)


OPTIONS = {
    "no bias": {"bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero": {"add_zero_attn": True},
    "bias_kv and zero": {"add_bias_kv": True, "add_zero_attn": True},
    "kdim": {"kdim": 9, "vdim": 6},
    "kdim, no bias": {"kdim": 9, "bias": False},
    "odd heads": {"num_heads": 3},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("which", ["none", "2-D", "3-D float", "both"])
def test_options(option, which):
    options = dict(OPTIONS[option])
    heads = options.pop("num_heads", H)
    if heads != H and which == "3-D float":
        pytest.skip("a mask for every head is made for 4 heads")
    for batch_first, need_weights in itertools.product((True, False), repeat=2):
        plain, fast = twins("MultiheadAttention", E, heads, batch_first=batch_first, **options)
        q, k, v = inputs("three", batch_first, True, options.get("kdim", E), options.get("vdim", E))
        given = masks(which, L, S)
        agree(plain, fast, q, k, v, need_weights=need_weights, gradients=True, **given)


def test_every_head_and_their_mean():
    plain, fast = twins("MultiheadAttention", E, H, batch_first=True)
    q, k, v = inputs("three", True)
    every = agree(plain, fast, q, k, v, average_attn_weights=False)["output 1"]
    assert every.shape == (N, H, L, S)
    assert torch.allclose(every.mean(1), agree(plain, fast, q, k, v)["output 1"], atol=1e-6)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_causal_hint(padded, need_weights):
    plain, fast = twins("MultiheadAttention", E, H, batch_first=True)
    x = inputs("self", True)
    given = masks("padding", L, L) if padded else {}
    hidden = torch.ones(L, L, dtype=torch.bool).triu(1)
    options = {"need_weights": need_weights, "gradients": True, **given}
    got = agree(plain, fast, *x, attn_mask=hidden, is_causal=True, **options)
    with torch.no_grad():  # and honed needs no mask beside it
        alone = fast(*x, is_causal=True, need_weights=need_weights, **given)[0]
    assert torch.allclose(alone, got["output 0"], atol=1e-6)


@pytest.mark.parametrize("need_weights", [False, True])
def test_queries_that_see_nothing(need_weights):
    """0, or NaN with weights, as torch's composition has it."""
    plain, fast = twins("MultiheadAttention", E, H)  # not batch first: torch's own fast path is out of it
    hidden = torch.zeros(L, L, dtype=torch.bool)
    hidden[2] = True
    agree(plain, fast, *inputs("self", False), attn_mask=hidden, need_weights=need_weights)
    x = inputs("self", False)[0]
    y = fast(x, x, x, attn_mask=hidden, need_weights=need_weights)[0]
    assert y[2].isnan().all() if need_weights else torch.allclose(y[2], fast.out_proj.bias.expand(N, E))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_types(dtype):
    for gradients in (False, True):
        plain, fast = twins("MultiheadAttention", E, H, batch_first=True, dtype=dtype)
        agree(plain, fast, *(x.to(dtype) for x in inputs("three", True)), gradients=gradients)


def test_autocast():
    plain, fast = twins("MultiheadAttention", E, H, batch_first=True)
    x = inputs("self", True)
    for gradients in (False, True):
        with torch.autocast("cpu"), torch.set_grad_enabled(gradients):
            got, expected = fast(*x, need_weights=False)[0], plain(*x, need_weights=False)[0]
        assert got.dtype == expected.dtype == torch.bfloat16
        with torch.no_grad():
            exact = plain.double()(*(t.double() for t in x), need_weights=False)[0]
            plain.float()
        own = (expected.double() - exact).abs().max()
        assert (got.double() - exact).abs().max() <= 2 * own


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout(need_weights):
    """The mean over many masks is the result without dropout; a seed gives the same mask again."""
    fast = MultiheadAttention(E, H, dropout=0.5, batch_first=True).train()
    torch.manual_seed(3)
    x = torch.randn(1, L, E).expand(4000, L, E)
    with torch.no_grad():
        torch.manual_seed(4)
        one = fast(x, x, x, need_weights=need_weights)[0]
        torch.manual_seed(4)
        assert torch.equal(one, fast(x, x, x, need_weights=need_weights)[0])
        assert not torch.equal(one, fast(x, x, x, need_weights=need_weights)[0])
        expected = fast.eval()(x[:1], x[:1], x[:1], need_weights=need_weights)[0][0]
    error = (one.mean(0) - expected).abs()
    assert (error <= 5 * one.std(0) / 4000**0.5).all()
    assert one.std(0).min() > 0


def test_cached_steps_are_the_whole():
    fast = MultiheadAttention(E, H, batch_first=True).eval()
    x, memory = torch.randn(N, 9, E), torch.randn(N, S, E)
    with torch.no_grad():
        whole = fast(x, x, x, is_causal=True, need_weights=False)[0]
        crossed = fast(x, memory, memory, need_weights=False)[0]
        for need_weights in (False, True):
            past, others = KeyValues(), KeyValues()
            parts, across = [], []
            for piece in (x[:, :4], x[:, 4:5], x[:, 5:8], x[:, 8:]):
                options = {"need_weights": need_weights}
                parts.append(fast(piece, piece, piece, is_causal=True, cache=past, **options)[0])
                across.append(fast(piece, memory, memory, cache=others, **options)[0])
            assert past.length == 9 and others.length == S
            assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-6)
            assert torch.allclose(torch.cat(across, 1), crossed, atol=1e-6)


def packed_of(fast):
    return {name: packed.product for name, packed in fast._packs.items()}


def test_weights_are_packed_once_and_anew():
    plain, fast = twins("MultiheadAttention", E, H, batch_first=True)
    x = inputs("self", True)
    agree(plain, fast, *x)
    before = packed_of(fast)
    assert before.keys() == {"qkv", "out"}
    agree(plain, fast, *x)
    assert packed_of(fast) == before
    for edit in (
        lambda m: m.in_proj_weight.mul_(2),
        lambda m: m.out_proj.bias.add_(1),
        lambda m: m.load_state_dict({n: p * 0.5 for n, p in m.state_dict().items()}),
        lambda m: setattr(m, "in_proj_weight", torch.nn.Parameter(m.in_proj_weight * 2)),
    ):
        with torch.no_grad():
            edit(plain), edit(fast)
        agree(plain, fast, *x)
        agree(plain, fast, *inputs("memory", True))
        agree(plain, fast, *inputs("three", True))
    assert packed_of(fast).keys() == {"qkv", "q", "kv", "k", "v", "out"}


def test_storage():
    plain, fast = twins("MultiheadAttention", 32, 4, batch_first=True)
    fast.storage = "int8"
    x = torch.randn(2, 6, 32)
    with torch.no_grad():
        got, expected = fast(x, x, x)[0], plain(x, x, x)[0]
    assert {packed.kind for packed in packed_of(fast).values()} == {"int8"}
    error = (got - expected).norm() / expected.norm()
    assert 1e-4 < error < 3e-2  # rounded, and no worse than 8 bits are
    with torch.enable_grad():
        assert torch.allclose(fast(x, x, x)[0], plain(x, x, x)[0], atol=1e-5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(copied):
    plain, fast = twins("MultiheadAttention", E, H, batch_first=True)
    x = inputs("self", True)
    agree(plain, fast, *x)
    other = copied(fast)
    with torch.no_grad():
        fast.in_proj_weight.zero_()
    assert type(other) is MultiheadAttention
    agree(plain, other, *x)


def test_compile():
    plain, fast = twins("MultiheadAttention", E, H, batch_first=True)
    torch._dynamo.reset()
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    x = inputs("memory", True)
    given = masks("both", L, S)
    for need_weights in (False, True):
        agree(plain, compiled, *x, need_weights=need_weights, **given)
    got, expected = compiled(*x)[0], plain(*x)[0]
    got.sum().backward(), expected.sum().backward()
    assert torch.allclose(fast.in_proj_weight.grad, plain.in_proj_weight.grad, atol=1e-5)


def test_unusual_parameters_and_devices():
    plain, fast = twins("MultiheadAttention", E, H, batch_first=True)
    for module in (plain, fast):
        torch.manual_seed(1)
        torch.nn.utils.parametrize.register_parametrization(module, "in_proj_weight", torch.nn.Tanh())
        module.out_proj.requires_grad_(False)
    x = inputs("memory", True)
    with torch.no_grad():
        assert torch.allclose(fast(*x)[0], plain(*x)[0], atol=1e-6)
    assert torch.allclose(fast(*x)[0], plain(*x)[0], atol=1e-6)
    meta = MultiheadAttention(E, H, device="meta")
    y = torch.ones(L, N, E, device="meta")
    assert meta(y, y, y)[0].shape == (L, N, E)

    class Marked(torch.Tensor):
        pass

    _, fast = twins("MultiheadAttention", E, H, batch_first=True)
    y = x[0].as_subclass(Marked)
    assert type(fast(y, y, y)[0]) is Marked


def test_vmap_and_functional_call():
    plain, fast = twins("MultiheadAttention", E, H, batch_first=True)
    x = torch.randn(2, N, L, E)
    with torch.no_grad():
        got = torch.vmap(lambda t: fast(t, t, t, need_weights=False)[0])(x)
        expected = torch.stack([plain(t, t, t, need_weights=False)[0] for t in x])
        assert torch.allclose(got, expected, atol=1e-6)
        doubled = {n: p * 2 for n, p in plain.state_dict().items()}
        y = x[0]
        got = torch.func.functional_call(fast, doubled, (y, y, y))[0]
        assert torch.allclose(got, torch.func.functional_call(plain, doubled, (y, y, y))[0], atol=1e-5)


def test_what_is_refused():
    _, fast = twins("MultiheadAttention", E, H, batch_first=True)
    q, k, v = inputs("three", True)
    with pytest.raises(RuntimeError, match=r"MultiheadAttention: attn_mask has shape \[5, 5\], expected"):
        fast(q, k, v, attn_mask=torch.zeros(L, L))
    with pytest.raises(RuntimeError, match=r"key_padding_mask has shape \[3, 5\], expected \[3, 7\]"):
        fast(q, k, v, key_padding_mask=torch.zeros(N, L))
    with pytest.raises(AssertionError, match="bool and floating types"):
        fast(q, k, v, attn_mask=torch.zeros(L, S, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"11.*12"):
        fast(q[..., 1:].contiguous(), k, v)


def test_hone_and_back():
    plain, _ = twins("MultiheadAttention", E, H, batch_first=True)
    fast = honed.hone(copy.deepcopy(plain), weights="fp16")
    assert type(fast) is MultiheadAttention and fast.storage == "fp16"
    x = inputs("self", True)
    with torch.no_grad():
        fast(*x)
    row = honed.report(fast).rows[1]
    assert (row.module, row.replaced_by) == ("MultiheadAttention", "honed.nn.MultiheadAttention")
    assert "packed f16" in row.kernel and row.bytes > 0
    assert len(honed.report(fast).rows) == 2  # its out_proj is not a row of its own
    honed.unhone(fast)
    assert type(fast) is torch.nn.MultiheadAttention and fast.__dict__.keys() == plain.__dict__.keys()

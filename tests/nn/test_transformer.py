"""honed.nn's Transformer layers and stacks: torch's results, masks, state; what is fused and what is not."""

import copy
import itertools
import pickle
import warnings

import pytest
import torch
from tests.nn.conftest import agree, twins

import honed
from honed import nn

F = torch.nn.functional
N, T, S, E = 3, 5, 7, 12
SRC, TGT = (torch.randn(N, n, E, generator=torch.Generator().manual_seed(n)) for n in (S, T))
PADDING = torch.arange(S) >= torch.tensor([[4], [S], [6]])
CAUSAL = torch.ones(T, T, dtype=torch.bool).triu(1)
LAYERS = ["TransformerEncoderLayer", "TransformerDecoderLayer"]


def layer(name, dropout=0.0, **options):
    return twins(name, E, 4, 16, dropout, batch_first=True, **options)


def inputs(name):
    return (SRC,) if name == "TransformerEncoderLayer" else (TGT, SRC)


def masked(name):
    if name == "TransformerEncoderLayer":
        return {"src_key_padding_mask": PADDING}
    return {"tgt_mask": CAUSAL, "memory_key_padding_mask": PADDING, "tgt_is_causal": True}


ACTIVATIONS = [
    F.relu,
    F.gelu,
    F.silu,
    "gelu",
    torch.nn.ReLU(),
    torch.nn.GELU("tanh"),
    torch.nn.SiLU(),
    torch.tanh,
]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations(name, activation):
    for norm_first, gradients in itertools.product((False, True), repeat=2):
        plain, fast = layer(name, activation=activation, norm_first=norm_first)
        if not gradients and getattr(activation, "approximate", "") != "tanh":
            plain.eval(), fast.eval()  # torch's fast path takes any GELU for the exact one
        agree(plain, fast, *inputs(name), gradients=gradients, **masked(name))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types_and_no_biases(name, dtype):
    for bias, gradients in itertools.product((True, False), repeat=2):
        plain, fast = layer(name, bias=bias, dtype=dtype, layer_norm_eps=1e-3)
        agree(plain, fast, *(x.to(dtype) for x in inputs(name)), gradients=gradients, **masked(name))


@pytest.mark.parametrize("name", LAYERS)
def test_sequence_first_and_without_a_batch(name):
    plain, fast = twins(name, E, 4, 16, 0.0)
    given = [x.transpose(0, 1).contiguous() for x in inputs(name)]
    agree(plain, fast, *given, gradients=True, **masked(name))
    agree(plain, fast, *(x[:, 0].contiguous() for x in given), gradients=True)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("norm_first", [False, True])
def test_dropout(name, norm_first):
    """The first sublayers' mean over many masks; a seed gives the same result again; eval drops nothing."""
    plain, fast = layer(name, 0.3, norm_first=norm_first)
    x = inputs(name)
    torch.manual_seed(1)
    one = fast(*x)
    torch.manual_seed(1)
    assert torch.equal(fast(*x), one) and not torch.equal(fast(*x), one)
    many = [x[:1].expand(3000, -1, -1) for x in inputs(name)]
    with torch.no_grad():
        means = []
        for module in (plain, fast):
            y = module(*many)
            means.append((y.mean(0), y.std(0)))
    error = (means[0][0] - means[1][0]).abs()
    assert (error <= 5 * (means[0][1] ** 2 + means[1][1] ** 2).sqrt() / 3000**0.5).all()
    assert torch.allclose(means[0][1], means[1][1], rtol=0.15, atol=0.02)
    agree(plain.eval(), fast.eval(), *x, gradients=True)


@pytest.mark.parametrize("name", LAYERS)
def test_hooks_run(name):
    plain, fast = layer(name)
    expected = fast(*inputs(name))
    seen = []
    for child in ("self_attn", "linear1", "linear2", "norm1", "dropout", "dropout1", "dropout2"):
        getattr(fast, child).register_forward_hook(lambda module, args, out, child=child: seen.append(child))
    assert torch.allclose(fast(*inputs(name)), expected, atol=1e-6)
    assert sorted(seen) == sorted(
        ("self_attn", "linear1", "linear2", "norm1", "dropout", "dropout1", "dropout2")
    )
    fast.linear2.register_forward_hook(lambda module, args, out: out * 0)
    plain.linear2.register_forward_hook(lambda module, args, out: out * 0)
    agree(plain, fast, *inputs(name))
    last = fast.self_attn if name == "TransformerEncoderLayer" else fast.multihead_attn
    last.register_forward_pre_hook(lambda module, args: None)
    with pytest.raises(TypeError, match="got cache or weights"):
        fast(*inputs(name), weights=[])


def test_other_attention_and_layers():
    class Doubled(torch.nn.MultiheadAttention):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)[0] * 2, None

    plain, fast = layer("TransformerEncoderLayer")
    for module in (plain, fast):
        torch.manual_seed(3)
        module.self_attn = Doubled(E, 4, batch_first=True)
        module.linear1 = torch.nn.Sequential(torch.nn.Linear(E, 16), torch.nn.Tanh())
        module.train()
    agree(plain, fast, SRC)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("norm", [None, torch.nn.LayerNorm(E)])
def test_encoder(gradients, norm):
    inner = torch.nn.TransformerEncoderLayer(E, 4, 16, 0.0, batch_first=True)
    plain = torch.nn.TransformerEncoder(inner, 2, norm).train(gradients)
    fast = honed.hone(copy.deepcopy(plain))
    assert type(fast) is nn.TransformerEncoder
    square = torch.ones(S, S, dtype=torch.bool).triu(1)
    for given in (
        {},
        {"src_key_padding_mask": PADDING},  # in eval mode torch makes nested tensors here
        {"src_key_padding_mask": ~PADDING | (torch.arange(S) == S - 1) & PADDING},  # not from the left
        {"mask": square},
        {"mask": square, "src_key_padding_mask": PADDING},
        {"mask": torch.zeros(S, S).masked_fill(square, -torch.inf)},  # seen to be causal
        {"mask": square, "is_causal": True},
    ):
        if "src_key_padding_mask" in given and given["src_key_padding_mask"].all(1).any():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            agree(plain, fast, SRC, gradients=gradients, **given)


def test_encoder_padding_is_zero_where_torchs_is():
    inner = torch.nn.TransformerEncoderLayer(E, 4, 16, 0.0, batch_first=True)
    for nested in (True, False):
        fast = nn.TransformerEncoder(inner, 1, enable_nested_tensor=nested).eval()
        with torch.no_grad():
            y = fast(SRC, src_key_padding_mask=PADDING)
        assert (y[PADDING] == 0).all() == nested
        assert (y[~PADDING] != 0).all()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_whole(batch_first, norm_first):
    options = {"batch_first": batch_first, "norm_first": norm_first, "activation": "gelu"}
    plain, fast = twins("Transformer", E, 4, 1, 2, 16, 0.0, **options)
    assert {type(m).__module__.split(".")[0] for m in fast.encoder.modules()} >= {"honed"}
    src, tgt = (SRC, TGT) if batch_first else (x.transpose(0, 1).contiguous() for x in (SRC, TGT))
    causal = torch.nn.Transformer.generate_square_subsequent_mask(T)
    for gradients in (False, True):
        agree(
            plain,
            fast,
            src,
            tgt,
            gradients=gradients,
            tgt_mask=causal,
            src_key_padding_mask=torch.zeros(PADDING.shape).masked_fill(PADDING, -torch.inf),
            memory_key_padding_mask=PADDING,
        )
    for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(copied.decoder.layers[0].self_attn) is nn.MultiheadAttention
        agree(plain, copied, src, tgt)


def test_parts_that_are_given_stay():
    encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(E, 4, 16, batch_first=True), 1)
    fast = nn.Transformer(E, 4, 1, 1, 16, custom_encoder=encoder, batch_first=True)
    assert fast.encoder is encoder and type(encoder) is torch.nn.TransformerEncoder
    assert type(fast.decoder) is nn.TransformerDecoder


def test_weights_are_each_heads():
    _, fast = layer("TransformerDecoderLayer")
    found = []
    with torch.no_grad():
        y = fast(TGT, SRC, memory_key_padding_mask=PADDING, weights=found)
        assert torch.allclose(y, fast(TGT, SRC, memory_key_padding_mask=PADDING), atol=1e-6)
    (weights,) = found
    assert weights.shape == (N, 4, T, S)
    assert torch.allclose(weights.sum(-1), torch.ones(N, 4, T), atol=1e-6)
    assert (weights.permute(0, 3, 1, 2)[PADDING] == 0).all()


def test_cached_steps_are_the_whole():
    _, fast = layer("TransformerDecoderLayer", norm_first=True)
    with torch.no_grad():
        whole = fast(TGT, SRC, tgt_is_causal=True)
        cache = nn.KeyValues(), nn.KeyValues()
        steps = [fast(TGT[:, i : i + 1], SRC, tgt_is_causal=True, cache=cache) for i in range(T)]
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_compile(name):
    plain, fast = layer(name)
    torch._dynamo.reset()
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            got, expected = compiled(*inputs(name), **masked(name)), plain(*inputs(name), **masked(name))
        assert torch.allclose(got, expected, atol=1e-5)
    got.sum().backward(), expected.sum().backward()
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-4)


def test_autocast_and_meta():
    plain, fast = layer("TransformerEncoderLayer")
    for gradients in (False, True):
        with torch.autocast("cpu"), torch.set_grad_enabled(gradients):
            got, expected = fast(SRC), plain(SRC)
        assert got.dtype == expected.dtype and torch.allclose(got, expected, rtol=0.05, atol=0.05)
    meta = nn.Transformer(E, 4, 1, 1, 16, device="meta", batch_first=True)
    assert meta(SRC.to("meta"), TGT.to("meta")).shape == TGT.shape

"""The engine against the same decoder written in plain torch float64; its cache; what it refuses."""

import copy
import math

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, relu, rms_norm, silu

from honed import _core
from honed.testing import cpu_level

LEVELS = _core.usable_levels()
ACTIVATIONS = {
    "silu": silu,
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
}
LLAMA = {
    "vocab_size": 101,
    "hidden_size": 48,
    "num_layers": 2,
    "num_heads": 6,
    "num_kv_heads": 2,
    "head_dim": 10,
    "intermediate_size": 70,
    "max_positions": 160,
    "norm": "rms_norm",
    "norm_eps": 1e-5,
    "position": "rope",
    "position_offset": 0,
    "rope_interleaved": False,
    "activation": "silu",
    "gated": True,
    "parallel_residual": False,
    "attention_scale": 10**-0.5,
    "attention_softcap": 0.0,
    "logit_softcap": 0.0,
    "embedding_scale": 1.0,
}
VARIANTS = {
    "llama": {},
    "gpt2": {
        "norm": "layer_norm",
        "position": "learned",
        "activation": "gelu_tanh",
        "gated": False,
        "num_kv_heads": 6,
    },
    "neox": {"norm": "layer_norm", "activation": "gelu", "gated": False, "parallel_residual": True},
    "opt": {
        "norm": "layer_norm",
        "position": "learned",
        "position_offset": 2,
        "activation": "relu",
        "gated": False,
    },
    "gemma2": {
        "attention_softcap": 5.0,
        "logit_softcap": 3.0,
        "embedding_scale": 48**0.5,
        "activation": "gelu_tanh",
    },
    "gptj": {"rope_interleaved": True, "parallel_residual": True},
}


class Plain:
    """The description in torch, and its weights."""

    def __init__(self, variant, seed=0):
        self.d = d = {**LLAMA, **VARIANTS[variant]}
        g = torch.Generator().manual_seed(seed)

        def draw(*shape, scale=None):
            return torch.randn(shape, generator=g) * (scale or shape[-1] ** -0.5)

        c, bias = d["hidden_size"], d["norm"] == "layer_norm"
        q, kv = d["num_heads"] * d["head_dim"], d["num_kv_heads"] * d["head_dim"]
        rotary = 4 if variant == "neox" else d["head_dim"] // 2
        angles = torch.arange(d["max_positions"])[:, None] / 50 ** (torch.arange(rotary) / rotary)
        self.w = {
            "embedding": draw(d["vocab_size"], c, scale=1.0),
            "position_embedding": draw(d["max_positions"] + d["position_offset"], c, scale=0.5),
            "cos": angles.cos(),
            "sin": angles.sin(),
            "final_norm": 1 + draw(c, scale=0.1),
            "final_norm_bias": draw(c, scale=0.1) if bias else None,
            "head": draw(d["vocab_size"], c),
        }
        self.layers = [
            {
                "attention_norm": 1 + draw(c, scale=0.1),
                "attention_norm_bias": draw(c, scale=0.1) if bias else None,
                "mlp_norm": 1 + draw(c, scale=0.1),
                "mlp_norm_bias": draw(c, scale=0.1) if bias else None,
                "q_norm": 1 + draw(d["head_dim"], scale=0.1) if variant == "llama" else None,
                "k_norm": 1 + draw(d["head_dim"], scale=0.1) if variant == "llama" else None,
                "q": draw(q, c),
                "k": draw(kv, c),
                "v": draw(kv, c),
                "qkv_bias": draw(q + 2 * kv, scale=0.1),
                "out": draw(c, q),
                "gate": draw(d["intermediate_size"], c),
                "up": draw(d["intermediate_size"], c),
                "down": draw(c, d["intermediate_size"]),
            }
            for _ in range(d["num_layers"])
        ]

    def engine(self, kind="f32"):
        d, w = self.d, self.w

        def pack(*weights, biases=None, woven=False):
            return _core.pack_weight(list(weights), kind, 32, biases, woven)

        layers = [
            {
                **{name: layer[name] for name in layer if "norm" in name},
                "qkv": pack(
                    layer["q"],
                    layer["k"],
                    layer["v"],
                    biases=list(layer["qkv_bias"].split([len(layer[name]) for name in "qkv"])),
                ),
                "attention_out": pack(layer["out"]),
                "up": pack(layer["gate"], layer["up"], woven=True) if d["gated"] else pack(layer["up"]),
                "down": pack(layer["down"]),
            }
            for layer in self.layers
        ]
        rope = d["position"] == "rope"
        weights = {
            "embedding": w["embedding"],
            "position_embedding": None if rope else w["position_embedding"],
            "rope_cos": w["cos"] if rope else None,
            "rope_sin": w["sin"] if rope else None,
            "final_norm": w["final_norm"],
            "final_norm_bias": w["final_norm_bias"],
            "head": pack(w["head"]),
            "layers": layers,
        }
        return _core.Engine(d, weights)

    def norm(self, x, weight, bias=None):
        weight = weight.double()
        if self.d["norm"] == "rms_norm":
            return rms_norm(x, x.shape[-1:], weight, self.d["norm_eps"])
        return layer_norm(x, x.shape[-1:], weight, bias.double(), self.d["norm_eps"])

    def turn(self, x, positions):
        cos, sin = (self.w[name].double()[positions][:, None] for name in ("cos", "sin"))
        half = cos.shape[-1]
        part, rest = x[..., : 2 * half], x[..., 2 * half :]
        if self.d["rope_interleaved"]:
            a, b = part[..., ::2], part[..., 1::2]
            turned = torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
        else:
            a, b = part.split(half, -1)
            turned = torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
        return torch.cat((turned, rest), -1)

    def logits(self, ids, mask=None, positions=None):
        d, w = self.d, self.w
        rows, time = ids.shape
        positions = torch.arange(time).expand(rows, time) if positions is None else positions
        x = w["embedding"].double()[ids] * d["embedding_scale"]
        if d["position"] == "learned":
            x = x + w["position_embedding"].double()[positions + d["position_offset"]]
        seen = torch.ones(time, time).tril().bool() & (
            mask[:, None, None] if mask is not None else torch.tensor(True)
        )

        def heads(rows_in, weight, bias, norm):
            y = (
                (rows_in @ weight.double().T + bias.double())
                .unflatten(-1, (-1, d["head_dim"]))
                .transpose(1, 2)
            )
            if norm is not None:
                y = rms_norm(y, y.shape[-1:], norm.double(), d["norm_eps"])
            return self.turn(y, positions) if d["position"] == "rope" else y

        for layer in self.layers:
            q_size, kv_size = layer["q"].shape[0], layer["k"].shape[0]
            bq, bk, bv = layer["qkv_bias"].split([q_size, kv_size, kv_size])
            h = self.norm(x, layer["attention_norm"], layer["attention_norm_bias"])
            q, k = heads(h, layer["q"], bq, layer["q_norm"]), heads(h, layer["k"], bk, layer["k_norm"])
            v = (h @ layer["v"].double().T + bv.double()).unflatten(-1, (-1, d["head_dim"])).transpose(1, 2)
            share = d["num_heads"] // d["num_kv_heads"]
            k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
            scores = q @ k.transpose(-1, -2) * d["attention_scale"]
            if d["attention_softcap"]:
                scores = d["attention_softcap"] * (scores / d["attention_softcap"]).tanh()
            weights = scores.masked_fill(~seen, -math.inf).softmax(-1).nan_to_num(0)
            attention = (weights @ v).transpose(1, 2).flatten(2) @ layer["out"].double().T
            source = x if d["parallel_residual"] else x + attention
            h = self.norm(source, layer["mlp_norm"], layer["mlp_norm_bias"])
            act = ACTIVATIONS[d["activation"]]
            up = h @ layer["up"].double().T
            inner = act(h @ layer["gate"].double().T) * up if d["gated"] else act(up)
            x = source + inner @ layer["down"].double().T
            if d["parallel_residual"]:
                x = x + attention
        y = self.norm(x, w["final_norm"], w["final_norm_bias"]) @ w["head"].double().T
        cap = d["logit_softcap"]
        return cap * (y / cap).tanh() if cap else y


def close(got, expected, tolerance=2e-5):
    assert got.shape == expected.shape
    assert (got.double() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_prompt_and_steps_equal_plain_torch(variant, level):
    plain = Plain(variant)
    with cpu_level(level):
        engine = plain.engine()
        for rows, time in ((1, 1), (1, 7), (3, 9), (2, 40)):
            ids = torch.randint(101, (rows, time))
            expected = plain.logits(ids)
            close(engine.forward(_core.Cache(engine, rows, 0, "f32"), ids, None, None, 0), expected)
            cache = _core.Cache(engine, rows, 0, "f32")
            close(engine.forward(cache, ids[:, : time // 2 + 1], None, None, 1)[:, 0], expected[:, time // 2])
            for t in range(time // 2 + 1, min(time, time // 2 + 5)):
                step = engine.forward(cache, ids[:, t : t + 1], None, None, 0)
                close(step[:, 0], expected[:, t])


def test_more_rows_than_a_chunk():
    plain = Plain("llama")
    engine = plain.engine()
    ids = torch.randint(101, (5, 130))  # 650 rows: two chunks
    for keep in (0, 1, 100):
        got = engine.forward(_core.Cache(engine, 5, 0, "f32"), ids, None, None, keep)
        close(got, plain.logits(ids)[:, -keep:])


def test_padding_and_positions():
    plain = Plain("llama")
    engine = plain.engine()
    ids = torch.randint(101, (3, 12))
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[0, :5] = mask[2, 8:] = False
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = _core.Cache(engine, 3, 0, "f32")
    got = engine.forward(cache, ids, positions, mask, 0)
    expected = plain.logits(ids, mask, positions)
    close(got[mask], expected[mask])
    assert got.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("f16", 2e-3), ("bf16", 2e-2), ("int8", 5e-2), ("int4", 0.5)]
)
def test_rounded_weights_stay_near(kind, tolerance):
    plain = Plain("llama")
    ids = torch.randint(101, (2, 9), generator=torch.Generator().manual_seed(1))
    engine = plain.engine(kind)
    got = engine.forward(_core.Cache(engine, 2, 0, "f16"), ids, None, None, 0)
    close(got, plain.logits(ids), tolerance)


def test_cache_crop_reorder_and_growth():
    plain = Plain("llama")
    engine = plain.engine()
    ids = torch.randint(101, (2, 10))
    cache = _core.Cache(engine, 2, 0, "f32")
    engine.forward(cache, ids, None, None, 0)
    cache.crop(6)
    cache.reorder(torch.tensor([1, 0, 1]))
    assert (cache.batch, cache.length) == (3, 6)
    tail = torch.randint(101, (3, 80))  # grows past the first capacity
    got = engine.forward(cache, tail, None, None, 0)
    close(got, plain.logits(torch.cat((ids[[1, 0, 1], :6], tail), 1))[:, 6:])
    cache.reset()
    assert cache.length == 0 and cache.nbytes > 0


def test_a_cache_serves_one_call_of_its_own_engine():
    engine = Plain("llama").engine()
    ids = torch.zeros(1, 3, dtype=torch.int64)
    options = {"sampling": {"do_sample": False}, "seeds": []}
    odd = Plain("llama")
    odd.d = {**odd.d, "num_layers": 1}
    odd.layers = odd.layers[:1]
    with pytest.raises(ValueError, match="made for a model of other sizes"):
        engine.forward(_core.Cache(odd.engine(), 1, 0, "f32"), ids, None, None, 0)
    cache = _core.Cache(engine, 1, 0, "f32")

    def again(_):
        for call in (
            lambda: engine.forward(cache, ids, None, None, 0),
            lambda: cache.reserve(100),
            lambda: cache.crop(0),
            cache.reset,
            lambda: cache.reorder(torch.tensor([0])),
        ):
            with pytest.raises(ValueError, match="in use by another call"):
                call()
        return False

    assert engine.generate(cache, ids, None, None, 3, [], 0, options, again).shape == (1, 6)
    assert cache.length == 5
    with pytest.raises(ValueError, match="reorder takes no rows"):
        cache.reorder(torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="the prompt is empty"):
        engine.generate(cache, ids[:, :0], None, None, 3, [], 0, options, None)
    cache.reset()
    with pytest.raises(ValueError, match="9223372036854775807 new ones, expected at most 160"):
        engine.generate(cache, ids, None, None, 2**63 - 1, [], 0, options, None)
    assert cache.length == 0


def test_refusals():
    plain = Plain("llama")
    engine = plain.engine()
    cache = _core.Cache(engine, 1, 0, "f32")
    ids = torch.zeros(1, 3, dtype=torch.int64)

    def refused(match, *args):
        with pytest.raises(ValueError, match=match):
            engine.forward(cache, *args)
        assert cache.length == 0

    refused("token id 101, expected 0 to 100", ids + 101, None, None, 0)
    refused("token id -1", ids - 1, None, None, 0)
    refused("position 160", ids, ids + 160, None, 0)
    refused(r"mask is bool of shape \[1, 4\]", ids, None, torch.ones(1, 4, dtype=torch.bool), 0)
    refused("ids have 2 rows", ids.repeat(2, 1), None, None, 0)
    refused("at least one token", ids[:, :0], None, None, 0)
    refused("161 tokens, expected at most 160", torch.zeros(1, 161, dtype=torch.int64), None, None, 0)
    refused("ids are int32", ids.int(), None, None, 0)
    refused("positions are int64", ids, ids[:, :2], None, 0)
    for bad, match in (
        ({"num_heads": 5}, "5 heads over 2"),
        ({"norm": "batch"}, "'norm' is 'batch'"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"hidden_size": 49}, "embedding has shape"),
        ({"intermediate_size": 71}, "up's number of outputs"),
    ):
        odd = copy.copy(plain)
        odd.d = {**plain.d, **bad}
        with pytest.raises(ValueError, match=match):
            odd.engine()
    with pytest.raises(ValueError, match="no 'head_dim'"):
        _core.Engine({k: v for k, v in plain.d.items() if k != "head_dim"}, {})
    with pytest.raises(ValueError, match="Cache: dtype is 'int8'"):
        _core.Cache(engine, 1, 0, "int8")
    with pytest.raises(ValueError, match="reorder takes row 1"):
        cache.reorder(torch.tensor([1]))

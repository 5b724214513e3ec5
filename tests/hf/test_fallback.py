"""What the engine does not do runs on torch, gives torch's answer, and is shown with its reason."""

import pytest
import torch
from tests.hf.conftest import SIZES, close, make, pair, prompt
from transformers import DynamicCache, LlamaConfig, LlamaForSequenceClassification, OPTConfig, OPTForCausalLM

import honed
from honed.generation.decoding import CACHE


def _embeds(model):
    return {"inputs_embeds": model.get_input_embeddings()(prompt())}


CALLS = {
    "output_hidden_states": lambda model: {"input_ids": prompt(), "output_hidden_states": True},
    "output_attentions": lambda model: {"input_ids": prompt(), "output_attentions": True},
    "no input_ids": _embeds,
    f"{CACHE} is a DynamicCache": lambda model: {
        "input_ids": prompt(),
        "past_key_values": DynamicCache(),
    },
    "attention_mask is [2, 1, 11, 11], not [2, 11]": lambda model: {
        "input_ids": prompt(),
        "attention_mask": torch.ones(2, 1, 11, 11, dtype=torch.bool).tril(),
    },
    "logits_to_keep is a tensor": lambda model: {
        "input_ids": prompt(),
        "logits_to_keep": torch.tensor([1, 4]),
    },
}


@pytest.mark.parametrize("reason", CALLS)
def test_calls_that_run_on_torch(reason):
    plain, fast = pair("llama")
    with torch.no_grad():
        expected, got = plain(**CALLS[reason](plain)), fast(**CALLS[reason](fast))
    assert torch.equal(got.logits, expected.logits)
    assert got.keys() == expected.keys()
    assert honed.report(fast).fallbacks == {reason: 1}


def test_gradients_run_on_torch():
    plain, fast = pair("llama")
    for model in (plain, fast):
        model(prompt(), labels=prompt()).loss.backward()
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    assert honed.report(fast).fallbacks == {
        "gradients are on (call under torch.no_grad() or torch.inference_mode())": 1
    }
    frozen = fast.requires_grad_(False)
    close(frozen(prompt()).logits, plain(prompt()).logits.detach())
    assert honed.report(fast).calls == 1


def test_hooks_are_called():
    _, fast = pair("llama")
    seen = []
    hook = fast.model.layers[0].mlp.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    with torch.no_grad():
        fast(prompt())
        assert seen == [(2, 11, 64)]
        assert honed.report(fast).fallbacks == {"a submodule has a forward hook": 1}
        hook.remove()
        fast(prompt())
        fast(prompt(), output_hidden_states=True)  # leaves transformers' own hooks behind
        fast(prompt())
    assert honed.report(fast).calls == 2
    tops = []
    fast.register_forward_hook(lambda module, args, out: tops.append(1))
    with torch.no_grad():
        fast(prompt())
    assert tops == [1]
    assert honed.report(fast).calls == 3


def test_attentions_from_generate():
    plain, fast = pair("llama")
    for model in (plain, fast):
        model.set_attn_implementation("eager")
    options = {
        "max_new_tokens": 4,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_attentions": True,
    }
    got, expected = fast.generate(prompt(), **options), plain.generate(prompt(), **options)
    assert torch.equal(got.sequences, expected.sequences)
    assert len(got.attentions) == 4
    close(got.attentions[3][1], expected.attentions[3][1])


def test_torch_cannot_read_a_cache_that_the_engine_filled():
    _, fast = pair("llama")
    with torch.no_grad():
        cache = fast(prompt()).past_key_values
        with pytest.raises(RuntimeError, match="11 tokens"):
            fast(prompt(2, 1), past_key_values=cache, output_hidden_states=True)


@pytest.mark.parametrize(("name", "path"), [("llama", "mlp.act_fn"), ("gpt2", "mlp.act")])
def test_replaced_activations(name, path):
    plain, fast = pair(name)
    for model in (plain, fast):
        layer = model.get_submodule("model.layers.1" if name == "llama" else "transformer.h.1")
        layer.set_submodule(path, torch.nn.Tanh())
    with torch.no_grad():
        assert torch.equal(fast(prompt()).logits, plain(prompt()).logits)
    (reason,) = honed.report(fast).fallbacks
    assert f"{path} is a Tanh" in reason


def test_norms_of_torch():
    plain = make("llama")
    plain.model.norm = torch.nn.RMSNorm(64, eps=1e-3)
    reason = honed.report(honed.hone(plain)).rows[0].reason
    assert "model.norm is a torch.nn.modules.normalization.RMSNorm" in reason


def test_listeners_at_the_models_own_forward_hear_every_token():
    plain, fast = pair("llama")
    options = {"max_new_tokens": 5, "do_sample": False}
    expected, heard = plain.generate(prompt(), **options), []
    hook = fast.register_forward_hook(lambda module, args, out: heard.append(1))
    assert torch.equal(fast.generate(prompt(), **options), expected)
    assert len(heard) == 5
    hook.remove()
    own = fast.forward
    fast.forward = lambda *args, **kwargs: heard.append(1) or own(*args, **kwargs)
    assert torch.equal(fast.generate(prompt(), **options), expected)
    assert len(heard) == 10


def test_replaced_modules():
    class Louder(torch.nn.Linear):
        pass

    _, fast = pair("llama")
    fast.model.layers[1].mlp.up_proj.__class__ = Louder
    fast.model.layers[1].mlp.up_proj = fast.model.layers[1].mlp.up_proj
    copied = honed.hone(honed.unhone(fast))
    assert "model.layers.1.mlp.up_proj is a" in honed.report(copied).rows[0].reason


def test_unknown_families_get_no_engine():
    config = OPTConfig(vocab_size=99, hidden_size=32, ffn_dim=64, num_hidden_layers=1, num_attention_heads=2)
    model = OPTForCausalLM(config).eval()
    before = type(model)
    assert honed.hone(model) is model
    assert type(model).__mro__[2] is before
    assert (type(model).__name__, type(model).__module__) == (before.__name__, before.__module__)
    found = honed.report(model)
    assert "'opt' is not known" in found.rows[0].reason
    assert "'opt' is not known" in str(found)
    headless = honed.hone(LlamaForSequenceClassification(LlamaConfig(**SIZES)))
    assert "is not the llama language model" in honed.report(headless).rows[0].reason
    linear = honed.hone(torch.nn.Linear(3, 3))
    assert "Linear is not a transformers model" in honed.report(linear).rows[0].reason
    assert honed.report(make("llama")).rows[0].reason == "not honed"
    assert honed.unhone(model) is model
    assert honed.report(model).rows[0].reason == "not honed"


REFUSED = {
    "rope type 'dynamic'": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "scale_attn_by_inverse_layer_idx": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "activation 'tanh'": ("llama", {"hidden_act": "tanh"}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_variants_that_the_engine_does_not_compute(reason):
    name, options = REFUSED[reason]
    assert reason in honed.report(honed.hone(make(name, **options))).rows[0].reason


def test_other_devices_and_types():
    assert "meta" in honed.report(honed.hone(make("llama").to("meta"))).rows[0].reason
    assert "float64" in honed.report(honed.hone(make("llama").double())).rows[0].reason
    moved = honed.hone(make("llama"))
    moved.double()
    with torch.no_grad():
        assert moved(prompt()).logits.dtype == torch.float64
    assert "float64" in str(honed.report(moved))
    moved.float()
    with torch.no_grad():
        close(moved(prompt()).logits, make("llama")(prompt()).logits)
    assert honed.report(moved).calls == 1
    assert "meta" in honed.report(moved.to("meta")).rows[0].reason


def test_report_shows_every_kind_of_module():
    _, fast = pair("qwen3")
    fast.generate(prompt(), max_new_tokens=2, do_sample=False)
    found = honed.report(fast)
    text = str(found)
    for word in ("lm_head", "self_attn.q_proj, k_proj, v_proj", "q_norm", "exact", "1 calls"):
        assert word in text
    assert found.bytes == sum(row.bytes for row in found.rows) > 0
    assert {row.count for row in found.rows} == {1, 2}

"""honed's own options of generate, in the engine's loop and in transformers'."""

import math

import pytest
import torch
from tests.hf.conftest import make, on_engine, pair, prompt
from transformers import GenerationConfig, OPTConfig, OPTForCausalLM

import honed
from honed import _core
from honed.generation import sequence_breakers
from honed.generation.options import OPTIONS, take_options
from honed.testing import cpu_level

GREEDY = {"do_sample": False, "max_new_tokens": 30, "eos_token_id": None}
RULES = {
    "logit_bias": {"logit_bias": {17: 4.0, 29: -math.inf}},
    "presence_penalty": {"presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": 0.7, "penalty_window": 12},
    "dry_multiplier": {"dry_multiplier": 2.0, "dry_base": 1.5, "dry_sequence_breakers": [7, [8, 9]]},
    "together": {
        "logit_bias": {17: 4.0},
        "presence_penalty": 0.5,
        "frequency_penalty": 0.2,
        "dry_multiplier": 1.0,
        "dry_window": 20,
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 3,
    },
}
FILTERS = {
    "top_n_sigma": {"top_n_sigma": 0.8},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.03},
    "dynatemp": {"dynatemp_range": 0.5, "dynatemp_exponent": 1.3, "temperature": 0.9},
    "mirostat 1": {"mirostat": 1, "mirostat_tau": 2.0},
    "mirostat 2": {"mirostat": 2, "mirostat_tau": 1.5},
    "together": {"temperature": 0.8, "top_n_sigma": 2.0, "top_p": 0.9, "min_p": 0.02, "xtc_probability": 1.0},
}


def watched(model):
    """Makes transformers' loop run, which calls the model for every token."""
    model.register_forward_hook(lambda module, args, out: None)
    return model


def left_padded():
    ids, mask = prompt(3, 11), torch.ones(3, 11, dtype=torch.int64)
    ids[1, :4], mask[1, :4] = 2, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", RULES)
def test_rules_in_both_loops(name):
    _, fast = pair("llama")
    got = fast.generate(**left_padded(), **GREEDY, **RULES[name])
    on_engine(fast)
    assert not torch.equal(got, fast.generate(**left_padded(), **GREEDY))
    expected = watched(fast).generate(**left_padded(), **GREEDY, **RULES[name])
    assert "forward hook" in str(honed.report(fast).fallbacks)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_in_both_loops(name):
    _, fast = pair("llama")
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": 1, "output_scores": True}
    options |= {"return_dict_in_generate": True, **FILTERS[name]}
    got = fast.generate(prompt(6), **options).scores[0]
    on_engine(fast)
    expected = watched(fast).generate(prompt(6), **options).scores[0]
    assert torch.equal(got == -math.inf, expected == -math.inf)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert (got == -math.inf).any() or name == "dynatemp"


@pytest.mark.parametrize("kind", [1, 2])
def test_mirostat_aims_at_its_surprise(kind):
    """The mean surprise of what is drawn comes close to tau, whatever the temperature."""
    _, fast = pair("llama")
    torch.manual_seed(0)
    for tau in (1.0, 3.0):
        out = fast.generate(
            prompt(20), do_sample=True, temperature=1.5, mirostat=kind, mirostat_tau=tau, mirostat_eta=0.2,
            max_new_tokens=100, eos_token_id=None, output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
        new = out.sequences[:, 11:].T
        surprise = [-s.log_softmax(-1).gather(1, t[:, None]) for s, t in zip(out.scores, new, strict=True)]
        mean = torch.stack(surprise)[30:].mean().item() / math.log(2)
        assert abs(mean - tau) < 0.3
    on_engine(fast)


def test_from_every_place_that_transformers_has():
    plain, fast = pair("llama")
    options = RULES["together"]
    expected = fast.generate(prompt(), **GREEDY, **options)
    assert torch.equal(
        fast.generate(prompt(), generation_config=GenerationConfig(**GREEDY, **options)), expected
    )
    fast.generation_config = GenerationConfig(**GREEDY, **options)
    assert torch.equal(fast.generate(prompt()), expected)
    off = {"logit_bias": None, "presence_penalty": 0.0, "frequency_penalty": 0.0, "dry_multiplier": 0.0}
    off |= {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": 0}
    assert torch.equal(fast.generate(prompt(), **off), plain.generate(prompt(), **GREEDY))


def test_saved_with_the_generation_config(tmp_path):
    _, fast = pair("llama")
    options = {**GREEDY, "presence_penalty": 1.5, "logit_bias": {17: 4.0}}  # a file has "17"
    expected = fast.generate(prompt(), **options)
    GenerationConfig(**options).save_pretrained(tmp_path)
    fast.generation_config = GenerationConfig.from_pretrained(tmp_path)
    assert torch.equal(fast.generate(prompt()), expected)


def test_beams_take_them_too():
    _, fast = pair("llama")
    got = fast.generate(prompt(), **GREEDY, num_beams=3, logit_bias={17: -math.inf, 40: 50.0})
    assert (got[:, 11:] == 40).all()


def test_models_without_the_engine_take_them_too():
    config = OPTConfig(vocab_size=99, hidden_size=32, ffn_dim=64, num_hidden_layers=1, num_attention_heads=2)
    fast = honed.hone(OPTForCausalLM(config).eval())
    ids = prompt(2) % 99
    assert (fast.generate(ids, **GREEDY, logit_bias={40: 500.0})[:, 11:] == 40).all()
    out = fast.generate(ids, do_sample=True, max_new_tokens=9, top_n_sigma=0.0001, eos_token_id=None)
    assert torch.equal(out, fast.generate(ids, do_sample=False, max_new_tokens=9, eos_token_id=None))


def test_take_options():
    kwargs = {"top_k": 3, "dry_multiplier": 1.0, "mirostat": 2}
    config = GenerationConfig()
    assert take_options(kwargs, config) == {"dry_multiplier": 1.0, "mirostat": 2}
    assert kwargs == {"top_k": 3} and config.mirostat == 2 and config.dry_multiplier == 1.0
    assert set(OPTIONS) >= {"dynatemp_range", "top_n_sigma", "xtc_threshold", "mirostat_eta", "dry_window"}


def test_sequence_breakers_of_text(tokenizer):
    a, b, line = tokenizer.convert_tokens_to_ids(["a", "b", "\u010a"])
    assert sequence_breakers(["\n", "ab"], tokenizer) == [[line], [a, b]]
    with pytest.raises(ValueError, match="a text is empty"):
        sequence_breakers([""], tokenizer)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dry_multiplier": 1.0, "dry_sequence_breakers": ["\n"]}, TypeError, "as tokens, not text"),
        ({"logit_bias": {999: 1.0}}, ValueError, "names token 999"),
        ({"do_sample": True, "mirostat": 3}, ValueError, "mirostat is 3"),
        ({"do_sample": True, "xtc_probability": 2.0}, ValueError, "xtc_probability is 2"),
        ({"do_sample": True, "top_n_sigma": "a"}, TypeError, "top_n_sigma is 'a'"),
        ({"do_sample": True, "mirostat": 2, "num_beams": 2}, ValueError, "mirostat with num_beams"),
        ({"logit_bias": {"a": 1.0}}, TypeError, "logit_bias is"),
        ({"num_beams": 2, "logit_bias": {5: math.nan}}, ValueError, "token 5 is nan"),
        ({"grammar": "x"}, TypeError, "grammar is 'x'"),
        ({"dry_multipler": 1.0}, ValueError, "not used by the model"),
    ],
    ids=str,
)
def test_refusals(options, error, message):
    _, fast = pair("llama")
    with pytest.raises(error, match=message):
        fast.generate(prompt(1), **{**GREEDY, **options})


@pytest.mark.parametrize(
    "option",
    [{"dynatemp_range": -1.0}, {"top_n_sigma": -1.0}, {"xtc_probability": -1.0}, {"xtc_threshold": 2.0}],
    ids=str,
)
def test_refusals_of_transformers_loop(option):
    _, fast = pair("llama")
    options = {**GREEDY, "do_sample": True, "xtc_probability": 0.5, **option}
    with pytest.raises(ValueError, match=f"{next(iter(option))} is"):
        watched(fast).generate(prompt(1), **options)


def test_filters_of_a_greedy_text_are_said_to_do_nothing():
    _, fast = pair("llama")
    with pytest.warns(UserWarning, match="xtc_probability, mirostat without do_sample=True"):
        fast.generate(prompt(1), **GREEDY, xtc_probability=0.5, mirostat=2)


def test_same_seed_same_text_on_every_level_and_thread_count():
    options = {"do_sample": True, "max_new_tokens": 24, "top_k": 40, "top_p": 0.9, "xtc_probability": 0.3}
    options |= RULES["together"]
    texts = []
    for level in _core.usable_levels():
        for threads in (1, 2):
            with cpu_level(level):
                _core.set_num_threads(threads)
                fast = honed.hone(make("llama"))
                torch.manual_seed(11)
                texts.append((level, threads, fast.generate(prompt(3), **options)))
                on_engine(fast)
    _core.set_num_threads(0)
    first = texts[0][2]
    assert all(torch.equal(text, first) for *_, text in texts), [(a, b) for a, b, _ in texts]
    torch.manual_seed(12)
    assert not torch.equal(fast.generate(prompt(3), **options), first)

"""generate() of honed models: which strategy runs, and the class that carries it."""

import copy
import inspect
import pickle

import pytest
import torch
from tests.generation.models import pair
from tests.hf.conftest import make, prompt
from transformers import GenerationConfig, StopStringCriteria

import honed
from honed.hf import strategies

SEARCH = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 8}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"do_sample": True, "penalty_alpha": 0.6, "top_k": 4}, None),
        ({"penalty_alpha": 0.6, "top_k": 1}, None),
        ({"penalty_alpha": 0.0}, None),
        ({"penalty_alpha": 0.6}, "contrastive_search"),
        ({"dola_layers": "low", "penalty_alpha": 0.6}, "dola"),
        ({"dola_layers": [1], "do_sample": True}, "dola"),
        ({"guidance_scale": 1.5}, "guidance"),
        ({"guidance_scale": 1.0}, None),
        ({"num_beams": 4}, None),
        ({"num_beams": 4, "num_beam_groups": 1}, None),
    ],
)
def test_options_are_those_of_transformers(options, expected):
    found = strategies._strategy(options.get)
    assert (found and found.__name__) == expected


def test_options_come_from_the_call_the_configuration_and_the_model():
    _, fast = pair("gpt2")
    ids = prompt(1, 9)
    greedy = fast.generate(ids, max_new_tokens=8, do_sample=False)
    expected = fast.generate(ids, **SEARCH)
    assert not torch.equal(expected, greedy)
    assert torch.equal(fast.generate(ids, GenerationConfig(**SEARCH)), expected)
    assert torch.equal(fast.generate(ids, generation_config=GenerationConfig(**SEARCH)), expected)
    fast.generation_config.penalty_alpha, fast.generation_config.top_k = 0.6, 4
    assert torch.equal(fast.generate(ids, max_new_tokens=8), expected)


def test_a_plain_model_asks_for_a_program_from_elsewhere():
    with pytest.raises(ValueError, match="trust_remote_code"):
        make("gpt2").generate(prompt(1, 9), **SEARCH)


def test_stop_strings_and_own_callables(tokenizer):
    _, fast = pair("gpt2")
    ids = prompt(1, 9)
    whole = fast.generate(ids, **SEARCH)
    text = tokenizer.decode(whole[0, 11:12])
    got = fast.generate(ids, stop_strings=[text], tokenizer=tokenizer, **SEARCH)
    criterion = StopStringCriteria(tokenizer, [text])
    at = next(n for n in range(10, whole.shape[1] + 1) if bool(criterion(whole[:, :n], None)))
    assert torch.equal(got, whole[:, :at])
    given = {}

    def own(model, input_ids, logits_processor, stopping_criteria, generation_config, **kwargs):
        given.update(kwargs)
        return "mine"

    assert fast.generate(ids, custom_generate=own, **SEARCH) == "mine"
    assert "streamer" not in given


@pytest.mark.parametrize("name", ["llama", "opt", "t5"])
def test_the_class_of_a_model_by_layers(name):
    plain, _ = pair(name)
    before = type(plain)
    model = honed.hone(copy.deepcopy(plain), train=True)
    now = type(model)
    assert isinstance(model, before) and now is not before
    assert (now.__name__, now.__qualname__, now.__module__) == (
        before.__name__,
        before.__qualname__,
        before.__module__,
    )
    assert inspect.signature(now.generate) == inspect.signature(before.generate)
    assert type(honed.hone(copy.deepcopy(plain), train=True)) is now
    expected = model.generate(prompt(1, 9), **SEARCH)
    for copied in (copy.deepcopy(model), honed.hone(model, train=True)):
        assert type(copied) is now
        assert torch.equal(copied.generate(prompt(1, 9), **SEARCH), expected)
    fresh = honed.hone(copy.deepcopy(plain), train=True)  # transformers' capturing hooks cannot be pickled
    loaded = pickle.loads(pickle.dumps(fresh))
    assert type(loaded) is now
    assert torch.equal(loaded.generate(prompt(1, 9), **SEARCH), expected)
    assert type(honed.unhone(loaded)) is before
    with pytest.raises(ValueError, match="trust_remote_code"):
        loaded.generate(prompt(1, 9), **SEARCH)


def test_saving_a_model_by_layers(tmp_path):
    plain, model = pair("opt")
    model.save_pretrained(tmp_path)
    loaded = type(plain).from_pretrained(tmp_path)
    assert type(loaded) is type(plain)
    assert torch.equal(loaded(prompt()).logits, plain(prompt()).logits)


@pytest.mark.parametrize("train", [False, True])
def test_peft(train):
    peft = pytest.importorskip("peft")
    plain, _ = pair("llama")
    model = honed.hone(copy.deepcopy(plain), train=train)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=True, task_type="CAUSAL_LM")
    expected = model.generate(prompt(1, 9), **SEARCH)
    wrapped = peft.get_peft_model(model, config).eval()
    assert torch.equal(wrapped.generate(input_ids=prompt(1, 9), **SEARCH), expected)
    merged = wrapped.merge_and_unload()
    assert torch.equal(merged.generate(prompt(1, 9), **SEARCH), expected)
    assert type(honed.unhone(merged)) is type(plain)

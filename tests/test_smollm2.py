"""A real model end to end: the text of honed's exact mode is that of transformers."""

import copy

import pytest
import torch

import honed

pytest.importorskip("honed.hf.hone")
PROMPT = "The keeper of the lighthouse wrote down the weather every morning, the ships he had"


@pytest.fixture(scope="module")
def loaded(smollm2):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kwargs = {"gguf_file": smollm2.name}
    model = AutoModelForCausalLM.from_pretrained(smollm2.parent, dtype=torch.float32, **kwargs).eval()
    ids = AutoTokenizer.from_pretrained(smollm2.parent, **kwargs)(PROMPT, return_tensors="pt")["input_ids"]
    return model, ids


def text_of(model, ids):
    with torch.inference_mode():
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0
        )


def loss_of(model, ids):
    with torch.inference_mode():
        return model(ids, labels=ids).loss.item()


def test_exact_text_and_back(loaded):
    model, ids = loaded
    plain = text_of(model, ids)
    honed.hone(model)
    try:
        assert torch.equal(text_of(model, ids), plain)
    finally:
        honed.unhone(model)
    assert torch.equal(text_of(model, ids), plain)


# Bits of a weight and the rounding step they leave: a wrong scale or order costs whole units of loss.
@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
def test_rounded_weights_still_know_the_text(loaded, weights):
    model, ids = loaded
    text = text_of(model, ids)
    plain, unknown = loss_of(model, text), loss_of(model, text.flip(1))
    rounded = copy.deepcopy(model)
    honed.hone(rounded, weights=weights)
    assert loss_of(rounded, text) < plain + (unknown - plain) / 4

"""Steppers against one forward over the whole sequence: padding, several tokens at once, reorder, crop."""

import pytest
import torch
from tests.hf.conftest import close, make, pair, prompt
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from honed.generation.stepper import EngineStepper, ModelStepper, stepper_for

FAMILIES = ("llama", "gpt2", "qwen3")


def whole(model, ids, mask=None, **kwargs):
    """Logits of every position, from one forward."""
    with torch.no_grad():
        if mask is not None:
            kwargs = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
        return model(ids, use_cache=False, **kwargs).logits


def padded(rows=3, length=9, pads=(0, 4, 1)):
    mask = torch.ones(rows, length, dtype=torch.long)
    for row, count in enumerate(pads):
        mask[row, :count] = 0
    return mask


@pytest.fixture(params=["engine", "model"])
def kind(request):
    return request.param


def steppers(kind, name, ids, mask=None):
    """The plain model, and a stepper over it or over its honed copy."""
    plain, honed_model = pair(name)
    kwargs = {"use_cache": True, "logits_to_keep": 1}
    if mask is not None:
        kwargs |= {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    with torch.no_grad():
        stepper = stepper_for(honed_model if kind == "engine" else plain, ids, kwargs)
    assert type(stepper) is (EngineStepper if kind == "engine" else ModelStepper)
    return plain, stepper


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("with_padding", [False, True])
def test_steps(kind, name, with_padding):
    ids = prompt(3, 16)
    mask = padded(length=16) if with_padding else None
    plain, step = steppers(kind, name, ids[:, :9], None if mask is None else mask[:, :9])
    expected = whole(plain, ids, mask)
    close(step(ids[:, :9], keep=2), expected[:, 7:9])
    close(step(ids[:, 9:10]), expected[:, 9:10])
    close(step(ids[:, 10:14], keep=3), expected[:, 11:14])
    assert (step.length, step.batch) == (14, 3)
    step.crop(11)
    assert step.length == 11
    close(step(ids[:, 11:], keep=5), expected[:, 11:])


@torch.no_grad()
@pytest.mark.parametrize("rows", [[2, 0, 0], [1], [0, 1, 2, 2, 1]])
def test_reorder(kind, rows):
    ids, mask, rows = prompt(3, 9), padded(), torch.tensor(rows)
    plain, step = steppers(kind, "llama", ids, mask)
    step(ids)
    step.reorder(rows)
    assert step.batch == len(rows)
    more = prompt(len(rows), 3, seed=8)
    expected = whole(
        plain, torch.cat((ids[rows], more), 1), torch.cat((mask[rows], torch.ones_like(more)), 1)
    )
    close(step(more[:, :1]), expected[:, 9:10])
    close(step(more[:, 1:], keep=2), expected[:, 10:])


@torch.no_grad()
def test_hidden_states_of_the_model():
    ids = prompt(2, 7)
    plain, step = steppers("model", "llama", ids)
    logits, states = step(ids, keep=2, hidden=True)
    assert states.shape == (2, 7, 64)
    close(plain.lm_head(states[:, -2:]), logits)


@torch.no_grad()
def test_without_a_cache():
    plain, ids = make("llama"), prompt(2, 9)
    step = stepper_for(plain, ids[:, :5], {"use_cache": False})
    expected = whole(plain, ids)
    close(step(ids[:, :5]), expected[:, 4:5])
    close(step(ids[:, 5:8], keep=2), expected[:, 6:8])
    step.crop(6)
    close(step(ids[:, 6:9], keep=3), expected[:, 6:9])


def encoder_decoders():
    sizes = {"vocab_size": 99, "d_model": 32, "pad_token_id": 1, "eos_token_id": 2}
    bart = {name: 2 for name in ("encoder_layers", "decoder_layers")}
    bart |= {name: 4 for name in ("encoder_attention_heads", "decoder_attention_heads")}
    bart |= {name: 40 for name in ("encoder_ffn_dim", "decoder_ffn_dim")}
    torch.manual_seed(3)
    return {
        "t5": T5ForConditionalGeneration(
            T5Config(**sizes, d_kv=8, d_ff=40, num_layers=2, num_heads=4, decoder_start_token_id=0)
        ).eval(),
        "bart": BartForConditionalGeneration(
            BartConfig(**sizes, **bart, decoder_start_token_id=2, init_std=0.3, max_position_embeddings=64)
        ).eval(),
    }


@torch.no_grad()
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_encoder_decoder(name):
    model = encoder_decoders()[name]
    source, ids, mask = prompt(3, 7) % 99, prompt(3, 8, seed=5) % 99, padded(3, 7, (0, 0, 2))
    given = {"attention_mask": mask, "encoder_outputs": model.get_encoder()(source, attention_mask=mask)}
    step = stepper_for(model, ids[:, :1], {**given, "use_cache": True})

    def expected(rows, ids):
        return model(
            input_ids=source[rows], attention_mask=mask[rows], decoder_input_ids=ids, use_cache=False
        ).logits

    every = torch.arange(3)
    close(step(ids[:, :1]), expected(every, ids)[:, :1])
    close(step(ids[:, 1:4], keep=2), expected(every, ids)[:, 2:4])
    step.crop(2)
    close(step(ids[:, 2:5]), expected(every, ids)[:, 4:5])
    rows = torch.tensor([2, 2, 0, 1])
    step.reorder(rows)
    more = torch.cat((ids[rows, :5], ids[:1, 5:].expand(4, -1)), 1)
    close(step(more[:, 5:6]), expected(rows, more)[:, 5:6])
    close(step(more[:, 6:], keep=2), expected(rows, more)[:, 6:])


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"use_cache": False}, "use_cache is off"),
        ({"inputs_embeds": torch.zeros(2, 5, 64)}, "argument inputs_embeds"),
    ],
)
def test_reasons(change, reason):
    _, model = pair("llama")
    step = stepper_for(model, prompt(2, 5), {"use_cache": True, **change})
    assert type(step) is ModelStepper
    assert model._honed.fallbacks[f"decoding: {reason}"] == 1

"""Assisted decoding and prompt lookup: the model's own greedy text, and exactly its own distribution."""

import copy
import math

import pytest
import torch
from tests.generation.models import pair
from tests.hf.conftest import prompt

import honed

NEW = 24


def _draft_of(plain, noise=0.01, **options):
    """The same model with other weights, honed: right often, but not always."""
    draft = copy.deepcopy(plain)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    for name, value in options.items():
        setattr(draft.generation_config, name, value)
    return honed.hone(draft)


def _greedy(model, ids, **options):
    return model.generate(ids, do_sample=False, max_new_tokens=NEW, **options)


SCHEDULES = {
    "constant": {"num_assistant_tokens": 4, "assistant_confidence_threshold": 0.0},
    "heuristic": {"num_assistant_tokens": 2, "num_assistant_tokens_schedule": "heuristic"},
    "confidence": {"num_assistant_tokens": 9, "assistant_confidence_threshold": 0.5},
    "long": {"num_assistant_tokens": 60, "assistant_confidence_threshold": 0.0},
}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_greedy_is_the_models_own(name, schedule):
    plain, fast = pair(name)
    draft = _draft_of(plain, **SCHEDULES[schedule])
    for seed in (3, 4):
        ids = prompt(1, 9, seed)
        expected = _greedy(fast, ids)
        before = fast._honed.calls
        assert torch.equal(_greedy(fast, ids, assistant_model=draft), expected)
        steps = fast._honed.calls - before
        assert 2 <= steps < expected.shape[1] - 9, "no draft, or every one, was accepted"
    assert not honed.report(fast).fallbacks
    assert not honed.report(draft).fallbacks
    if schedule == "heuristic":
        assert draft.generation_config.num_assistant_tokens != 2


def test_its_own_int4_as_draft():
    plain, fast = pair("llama")
    ids = prompt(1, 9)
    draft = honed.hone(copy.deepcopy(plain), weights="int4")
    assert torch.equal(_greedy(fast, ids, assistant_model=draft), _greedy(plain, ids))
    assert not honed.report(draft).fallbacks


@pytest.mark.parametrize("padded", [False, True])
def test_processors_streamer_criteria_and_results(padded):
    plain, fast = pair("llama")
    draft = _draft_of(plain, num_assistant_tokens=5)
    ids, mask = prompt(1, 9), torch.ones(1, 9, dtype=torch.long)
    if padded:
        ids[:, :3], mask[:, :3] = 2, 0
    heard = []

    class Streamer:
        def put(self, value):
            heard.append(value.reshape(-1).tolist())

        def end(self):
            heard.append("end")

    options = {"attention_mask": mask, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}
    results = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    expected = _greedy(plain, ids, **options, **results)
    got = _greedy(fast, ids, assistant_model=draft, streamer=Streamer(), **options, **results)
    assert torch.equal(got.sequences, expected.sequences)
    row = expected.sequences[0].tolist()
    assert heard == [row[:9], *([token] for token in row[9:]), "end"]
    for name in ("scores", "logits"):
        mine, theirs = torch.stack(got[name]), torch.stack(expected[name])
        real = theirs.isfinite()
        assert mine.shape == theirs.shape and torch.equal(mine.isfinite(), real)
        assert (mine - theirs)[real].abs().max() < 1e-4 * theirs[real].abs().max()
    assert got.past_key_values.get_seq_length() == len(row) - 1
    stop = [lambda ids, scores: ids[:, -1] == row[12]]
    stopped = _greedy(fast, ids, assistant_model=draft, stopping_criteria=stop, **options)
    assert stopped[0].tolist() == row[: row.index(row[12], 9) + 1]


def test_prompt_lookup_is_greedy_and_finds_repetitions():
    _, fast = pair("gpt2")
    ids = prompt(1, 9)
    expected = _greedy(fast, ids)
    for options in (
        {"prompt_lookup_num_tokens": 5},
        {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1},
    ):
        before = fast._honed.calls
        assert torch.equal(_greedy(fast, ids, **options), expected)
        assert fast._honed.calls - before < NEW
    assert not honed.report(fast).fallbacks


def _chi_square(seen, expected, count):
    """Statistic and a bound that a right sampler passes but once in 10^6."""
    assert not seen[expected == 0].any()
    likely = expected * count >= 5
    chi = ((seen - expected * count) ** 2 / (expected * count))[likely].sum().item()
    degrees = int(likely.sum()) - 1
    assert degrees >= 3
    return chi, degrees + 5 * math.sqrt(2 * degrees) + 10


@pytest.mark.parametrize("options", [{}, {"top_k": 6, "temperature": 0.7}], ids=["plain", "warped"])
@pytest.mark.parametrize("kind", ["draft", "lookup"])
def test_draws_are_the_models_own(kind, options):
    plain, fast = pair("llama", vocab_size=8, eos_token_id=None)
    ids = torch.tensor([[3, 4, 5, 3, 4, 5, 3]])
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": 2, **options}
    if kind == "draft":
        draft = _draft_of(plain, 0.05, num_assistant_tokens=1, assistant_confidence_threshold=0.0)
        assisted = {"assistant_model": draft}
    else:
        assisted = {"prompt_lookup_num_tokens": 2}
    # The distribution of both tokens, from transformers' own processors.
    expected = torch.zeros(8, 8, dtype=torch.float64)
    scores = {"return_dict_in_generate": True, "output_scores": True, **options, "max_new_tokens": 1}
    first = plain.generate(ids, **scores).scores[0][0].double().softmax(-1)
    for token in range(8):
        after = torch.cat((ids, torch.tensor([[token]])), 1)
        made = plain.generate(after, attention_mask=torch.ones_like(after), **scores)
        expected[token] = first[token] * made.scores[0][0].double().softmax(-1)
    count = 1500
    torch.manual_seed(0)
    seen = torch.zeros(8, 8, dtype=torch.float64)
    before = fast._honed.calls
    for _ in range(count):
        one, two = fast.generate(ids, **assisted, **options)[0, -2:]
        seen[one, two] += 1
    assert count < fast._honed.calls - before < 2 * count  # some drafts were kept, some not
    chi, bound = _chi_square(seen.flatten(), expected.flatten(), count)
    assert chi < bound


def test_other_drafts_run_transformers_loop():
    plain, fast = pair("llama")
    ids = prompt(1, 9)
    expected = _greedy(fast, ids)
    assert torch.equal(_greedy(fast, ids, assistant_model=copy.deepcopy(plain)), expected)
    assert list(honed.report(fast).fallbacks) == ["assisted decoding: the assistant: the model is not honed"]
    by_layers = honed.hone(copy.deepcopy(plain), train=True)
    assert torch.equal(_greedy(by_layers, ids, assistant_model=fast), expected)
    with pytest.raises(ValueError, match="batch_size = 1"):
        _greedy(fast, prompt(2, 9), assistant_model=_draft_of(plain))

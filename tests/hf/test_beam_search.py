"""Beam search on the engine against transformers' own: texts, scores, paths; what is left to transformers."""

import pytest
import torch
from tests.hf.conftest import on_engine, pair, prompt
from transformers import (
    EosTokenCriteria,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
)

DICT = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}


def padded(ids, pads=(0, 4, 1)):
    mask = torch.ones_like(ids)
    for row, count in enumerate(pads[: len(ids)]):
        mask[row, :count] = 0
    return {"input_ids": torch.where(mask.bool(), ids, 2), "attention_mask": mask}


def common(model, inputs, **options):
    """Tokens that the model likes, to serve as eos: beams end at different lengths."""
    made = model.generate(**inputs, do_sample=False, min_new_tokens=12, max_new_tokens=12, **options)
    return made[:, inputs["input_ids"].shape[1] :].flatten().unique().tolist()


def both(name="llama", rows=3, length=7, seed=3, eos=2, **options):
    plain, ours = pair(name)
    inputs = padded(prompt(rows, length, seed))
    torch.manual_seed(1)
    if eos:
        options["eos_token_id"] = common(plain, inputs)[:: max(1, 8 // eos)][:eos]
    made = []
    for model in (plain, ours):
        torch.manual_seed(2)
        made.append(model.generate(**inputs, pad_token_id=2, **{"max_new_tokens": 14, **options}))
    on_engine(ours)
    return made


def same(expected, got):
    assert torch.equal(expected.sequences, got.sequences)
    assert torch.equal(expected.beam_indices, got.beam_indices)
    torch.testing.assert_close(got.sequences_scores, expected.sequences_scores, rtol=1e-4, atol=1e-4)
    for name in ("scores", "logits"):
        assert len(getattr(expected, name)) == len(getattr(got, name))
        for a, b in zip(getattr(got, name), getattr(expected, name), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0, 2.5])
@pytest.mark.parametrize("eos", [0, 1, 3])
def test_texts_scores_and_paths(early, penalty, eos):
    same(
        *both(
            eos=eos, num_beams=4, num_return_sequences=3, early_stopping=early, length_penalty=penalty, **DICT
        )
    )


@pytest.mark.parametrize(("early", "penalty"), [(True, 1.0), (False, 1.0), (False, 0.0), ("never", 0.0)])
def test_stops_before_the_greatest_length(early, penalty):
    expected, got = both(
        rows=2, eos=8, num_beams=3, max_new_tokens=60, early_stopping=early, length_penalty=penalty, **DICT
    )
    same(expected, got)
    assert len(got.scores) < 60


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "llama-tied"])
@pytest.mark.parametrize("beams", [2, 5])
def test_families(name, beams):
    expected, got = both(name, num_beams=beams, num_return_sequences=beams)
    assert torch.equal(expected, got)


@pytest.mark.parametrize(
    "options",
    [
        {"min_new_tokens": 6},
        {"min_length": 12, "max_length": 17},
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2},
        {"suppress_tokens": [5, 6, 7], "forced_eos_token_id": 1},
        {"bad_words_ids": [[9], [11, 12]]},
        {"renormalize_logits": True, "repetition_penalty": 1.2},
        {"prefix_allowed_tokens_fn": lambda batch, ids: list(range(batch, 120))},
    ],
)
def test_processors(options):
    same(*both(num_beams=3, num_return_sequences=2, **options, **DICT))
    expected, got = both(num_beams=3, **options)
    assert torch.equal(expected, got)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}])
def test_beam_sampling(options):
    same(*both(num_beams=3, do_sample=True, num_return_sequences=2, **options, **DICT))


class EndsWith(StoppingCriteria):
    def __init__(self, tokens):
        self.tokens = torch.tensor(tokens)

    def __call__(self, ids, scores, **kwargs):
        return torch.isin(ids[:, -1], self.tokens)


class Favour(LogitsProcessor):
    def __call__(self, ids, scores):
        scores = scores.clone()
        scores[:, 40:60] += 1.5
        return scores


def test_criteria_and_processors_of_the_caller():
    def options():
        return {
            "stopping_criteria": StoppingCriteriaList([EndsWith([41, 45, 52])]),
            "logits_processor": LogitsProcessorList([Favour()]),
        }

    same(*both(num_beams=3, num_return_sequences=3, **options(), **DICT))


@pytest.mark.parametrize("kind", [MaxLengthCriteria, EosTokenCriteria])
def test_bounds_of_the_caller_beside_those_of_the_options(kind):
    given = MaxLengthCriteria(11) if kind is MaxLengthCriteria else EosTokenCriteria([41, 45, 52])
    expected, got = both(num_beams=3, stopping_criteria=StoppingCriteriaList([given]))
    assert torch.equal(expected, got)
    assert not torch.equal(got, both(num_beams=3)[1])


def test_one_prompt_and_many_beams():
    expected, got = both(rows=1, length=1, num_beams=40, num_return_sequences=40, max_new_tokens=5)
    assert torch.equal(expected, got)


def test_what_transformers_does():
    plain, ours = pair("llama")
    ids = prompt(2, 6)
    for options, reason in (
        ({"use_cache": False}, "use_cache is off"),
        ({"return_dict_in_generate": True, "output_hidden_states": True}, "output_hidden_states"),
    ):
        expected, got = (m.generate(ids, num_beams=2, max_new_tokens=4, **options) for m in (plain, ours))
        texts = [x if isinstance(x, torch.Tensor) else x.sequences for x in (expected, got)]
        assert torch.equal(*texts)
        assert ours._honed.fallbacks[f"beam search: {reason}"] == 1


def test_the_limit_of_positions():
    _, ours = pair("llama")
    with pytest.warns(UserWarning, match="more than the 128 positions of the model"):
        got = ours.generate(prompt(1, 120), num_beams=2, max_length=140, eos_token_id=[])
    assert got.shape == (1, 128)

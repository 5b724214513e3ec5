"""Every processor and criterion of transformers in the engine's loop: its tokens, its scores."""

import math
import random
import re

import numpy
import pytest
import torch
from tests.hf.conftest import on_engine, pair, prompt
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation import logits_process

import honed
from honed.generation.decoding import CACHE

LENGTH = 24
EOS = [5, 9]
DRAWN = {"do_sample": True, "top_k": 0}
PROCESSORS = {
    "sequence_bias": [[[17], 3.0], [[18, 19], -4.0], [[30], -math.inf]],
    "encoder_repetition_penalty": 1.5,
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 1,
    "bad_words_ids": [[20, 21], [22], [5]],
    "min_length": 20,
    "min_new_tokens": 8,
    "forced_eos_token_id": 9,
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": (3, 1.3),
    "suppress_tokens": list(range(40, 200)),
    "begin_suppress_tokens": list(range(3, 120)),
    "renormalize_logits": True,
}
WARPERS = {
    "temperature": 0.7,
    "top_k": 12,
    "top_p": 0.8,
    "min_p": 0.05,
    "typical_p": 0.7,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.02,
    "top_h": 0.6,
}


def padded(rows=3, length=11):
    """A batch padded on the left."""
    ids, mask = prompt(rows, length), torch.ones(rows, length, dtype=torch.int64)
    for row in range(1, rows):
        ids[row, : 2 * row], mask[row, : 2 * row] = 2, 0
    return {"input_ids": ids, "attention_mask": mask}


def both(name="llama", given=None, on=True, **options):
    """The results of the plain and the honed model, which must not have left the engine."""
    given = padded() if given is None else given
    options = {"max_length": LENGTH, "eos_token_id": EOS, "pad_token_id": 2, "do_sample": False, **options}
    plain, fast = pair(name)
    expected, got = (model.generate(**given, **options) for model in (plain, fast))
    if on:
        on_engine(fast)
    return got, expected


def same_results(got, expected):
    assert type(got) is type(expected)
    assert torch.equal(got.sequences, expected.sequences)
    for name in ("scores", "logits"):
        one, other = getattr(got, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if other is not None:
            assert isinstance(one, tuple) and len(one) == len(other)
            one, other = torch.stack(one), torch.stack(other)
            assert torch.equal(one == -math.inf, other == -math.inf)
            # The two forwards differ by their rounding; a penalty or a temperature makes that larger.
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["llama", "gpt2"])
@pytest.mark.parametrize("name", PROCESSORS)
def test_one_processor(name, model):
    got, expected = both(model, **{name: PROCESSORS[name]})
    assert torch.equal(got, expected)


@pytest.mark.parametrize("seed", range(25))
def test_processors_together(seed):
    chosen = random.Random(seed)
    options = {name: value for name, value in PROCESSORS.items() if chosen.random() < 0.4}
    if {"remove_invalid_values", "exponential_decay_length_penalty"} <= options.keys():
        options.pop("renormalize_logits", None)  # the two can make a logit infinite, and all others NaN
    options |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    same_results(*both(chosen.choice(["llama", "gpt2"]), **options))


@pytest.mark.parametrize("name", WARPERS)
def test_one_warper_keeps_the_same(name):
    """One step: what is kept, and its scores; from step to step the texts are drawn differently."""
    options = {**DRAWN, name: WARPERS[name], "max_length": 12}
    options |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    got, expected = both(**options)
    got.sequences = expected.sequences
    same_results(got, expected)
    assert (got.scores[0] == -math.inf).any() or name == "temperature"


@pytest.mark.parametrize("seed", range(25))
def test_warpers_and_processors_together(seed):
    chosen = random.Random(seed)
    options = {name: value for name, value in (PROCESSORS | WARPERS).items() if chosen.random() < 0.3}
    if "begin_suppress_tokens" in options:
        options.pop("forced_eos_token_id", None)  # nothing would be left
    if "remove_invalid_values" in options:
        options.pop("forced_eos_token_id", None)  # ties of all tokens but one, of which torch keeps any
        options.pop("exponential_decay_length_penalty", None)  # infinite, which multinomial refuses
    options |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    got, expected = both(**{**DRAWN, **options, "max_length": 12})
    got.sequences = expected.sequences
    same_results(got, expected)


def test_drawn_text_follows_the_rules():
    """Twelve tokens of 200 rows: each is among what transformers' processors leave of the model's logits."""
    options = {**DRAWN, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "top_k": 5, "temperature": 1.5}
    _, fast = pair("llama")
    out = fast.generate(
        prompt(1), num_return_sequences=40, max_new_tokens=12, output_logits=True, output_scores=True,
        return_dict_in_generate=True, eos_token_id=None, **options,
    )  # fmt: skip
    on_engine(fast)
    processors = LogitsProcessorList(
        (
            logits_process.RepetitionPenaltyLogitsProcessor(1.4),
            logits_process.NoRepeatNGramLogitsProcessor(2),
            logits_process.TemperatureLogitsWarper(1.5),
            logits_process.TopKLogitsWarper(5),
        )
    )
    for step, (logits, scores) in enumerate(zip(out.logits, out.scores, strict=True)):
        ids = out.sequences[:, : 11 + step]
        expected = processors(ids, logits.clone())
        assert torch.equal(expected == -math.inf, scores == -math.inf)
        torch.testing.assert_close(scores, expected)
        assert (expected.gather(1, out.sequences[:, 11 + step, None]) > -math.inf).all()


def test_prefix_allowed_tokens():
    heard = []

    def allowed(row, ids):
        heard.append((row, ids.tolist()))
        return [int(ids[-1]) % 50 + 10, 77 + row, 258]

    got, expected = both(prefix_allowed_tokens_fn=allowed, eos_token_id=[258])
    assert torch.equal(got, expected)
    assert heard[: len(heard) // 2] == heard[len(heard) // 2 :]
    _, fast = pair("llama")
    with pytest.raises(ValueError, match="no token for row 0"):
        fast.generate(prompt(1), prefix_allowed_tokens_fn=lambda row, ids: [], do_sample=False)


def test_forced_bos_of_a_one_token_prompt():
    got, expected = both(given={"input_ids": prompt(2, 1)}, forced_bos_token_id=33)
    assert torch.equal(got, expected) and (got[:, 1] == 33).all()


def test_processors_of_the_caller_in_another_order():
    """transformers puts the caller's own behind all others; the engine does them in the order given."""
    mine = [
        logits_process.SuppressTokensLogitsProcessor(list(range(60, 90))),
        logits_process.NoRepeatNGramLogitsProcessor(3),
    ]
    got, expected = both(logits_processor=LogitsProcessorList(mine), repetition_penalty=1.2, min_length=15)
    assert torch.equal(got, expected)


def test_minimum_length_and_padding():
    got, expected = both("gpt2", min_new_tokens=4, sequence_bias=[[[5], 100.0]])
    assert torch.equal(got, expected)
    assert (got[:, 15] == 5).all() and got.shape[1] == 16


class EndsAt(StoppingCriteria):
    """A row ends at a length of its own."""

    def __init__(self):
        self.heard = []

    def __call__(self, input_ids, scores, **kwargs):
        self.heard.append((input_ids.tolist(), None if scores is None else len(scores)))
        return torch.tensor([input_ids.shape[1] >= 13 + 2 * row for row in range(len(input_ids))])


@pytest.mark.parametrize("eos", [[5], None])
@pytest.mark.parametrize("scores", [True, False])
def test_criteria_of_the_caller(eos, scores):
    """Rows end one after the other; where nothing has an end token, transformers pads none of them."""
    heard = []

    class Noted(EndsAt):
        def __call__(self, *args, **kwargs):
            out = super().__call__(*args, **kwargs)
            heard.append(self.heard[-1])
            return out

    given = {"stopping_criteria": StoppingCriteriaList([Noted()]), "eos_token_id": eos}
    if scores:
        given |= {"return_dict_in_generate": True, "output_scores": True}
    got, expected = both(**given)
    if scores:
        same_results(got, expected)
        got, expected = got.sequences, expected.sequences
    assert torch.equal(got, expected) and got.shape[1] == 17
    assert heard[: len(heard) // 2] == heard[len(heard) // 2 :]


def test_criteria_that_answer_for_all_rows_at_once():
    for beams in (1, 2):
        got, expected = both(stopping_criteria=[lambda ids, scores: ids.shape[1] >= 14], num_beams=beams)
        assert torch.equal(got, expected) and got.shape[1] == 14


def test_kinds_of_numbers():
    for options in (
        {"max_new_tokens": 5.0},
        {"max_new_tokens": torch.tensor(5)},
        {"forced_bos_token_id": torch.tensor(9)},
        {"forced_bos_token_id": numpy.int64(9)},
    ):
        plain, fast = pair("llama")
        ids = prompt(2, 1)
        options = {"do_sample": False, "max_new_tokens": 4, **options}
        assert torch.equal(fast.generate(ids, **options), plain.generate(ids, **options))
        on_engine(fast)


def test_stop_strings(tokenizer):
    plain, fast = pair("llama")
    given = tokenizer(["Call me", "It was the"], return_tensors="pt", padding=True)
    options = {"max_new_tokens": 40, "do_sample": False, "tokenizer": tokenizer}
    text = tokenizer.batch_decode(plain.generate(**given, **options)[:, given["input_ids"].shape[1] :])[0]
    stop = text[3:5]
    assert stop
    got, expected = (m.generate(**given, **options, stop_strings=[stop, "never"]) for m in (fast, plain))
    assert torch.equal(got, expected)
    on_engine(fast)


def test_max_time_ends_the_loop():
    _, fast = pair("llama")
    out = fast.generate(prompt(1), max_time=0.0, max_new_tokens=50, do_sample=False)
    assert out.shape == (1, 12)
    on_engine(fast)


def test_dictionary_of_a_greedy_text():
    got, expected = both(return_dict_in_generate=True)
    same_results(got, expected)
    assert got[CACHE].get_seq_length() == expected[CACHE].get_seq_length()
    assert got.keys() == expected.keys()


def test_scores_of_a_processor_that_raises_leave_the_model_usable():
    _, fast = pair("llama")

    class Broken(StoppingCriteria):
        def __call__(self, *args, **kwargs):
            raise RuntimeError("broken criterion")

    with pytest.raises(RuntimeError, match="broken criterion"):
        fast.generate(prompt(1), stopping_criteria=[Broken()], max_new_tokens=5, do_sample=False)
    assert fast.generate(prompt(1), max_new_tokens=5, do_sample=False).shape == (1, 16)


def test_rows_of_a_processor_for_another_batch():
    """transformers refuses it; so its loop has to run."""
    _, fast = pair("llama")
    odd = logits_process.RepetitionPenaltyLogitsProcessor(1.2, torch.tensor([0, 0, 0]))
    with pytest.raises(ValueError, match="Incompatible"):
        fast.generate(prompt(2), logits_processor=[odd], max_new_tokens=3, do_sample=False)
    (reason,) = honed.report(fast).fallbacks
    assert re.search("RepetitionPenaltyLogitsProcessor for another number of rows", reason)

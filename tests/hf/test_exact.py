"""Exact mode against transformers: logits, caches, greedy, beam and sampled generation."""

import copy

import pytest
import torch
from tests.hf.conftest import MODELS, VOCABULARY, close, make, on_engine, pair, prompt
from transformers import DynamicCache, LogitsProcessor, TextIteratorStreamer, pipeline
from transformers.generation.streamers import BaseStreamer

import honed
from honed.hf import HonedCache

GREEDY = {"do_sample": False, "max_new_tokens": 24}


@pytest.mark.parametrize("name", MODELS)
def test_logits(name):
    plain, fast = pair(name)
    with torch.no_grad():
        for rows, length in ((1, 1), (2, 11), (3, 40)):
            ids = prompt(rows, length)
            close(fast(ids).logits, plain(ids).logits)
    on_engine(fast)


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_generates_the_same_tokens(name, beams):
    plain, fast = pair(name)
    ids = prompt()
    options = {**GREEDY, "num_beams": beams}
    assert torch.equal(fast.generate(ids, **options), plain.generate(ids, **options))
    on_engine(fast)


def _left_padded():
    ids = prompt(3, 12)
    mask = torch.ones_like(ids)
    for row, pad in enumerate((0, 5, 9)):
        mask[row, :pad] = 0
        ids[row, :pad] = 2
    return ids, mask


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_left_padding(name, beams):
    plain, fast = pair(name)
    ids, mask = _left_padded()
    options = {**GREEDY, "num_beams": beams, "attention_mask": mask}
    assert torch.equal(fast.generate(ids, **options), plain.generate(ids, **options))
    on_engine(fast)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_any_mask(name):
    plain, fast = pair(name)
    ids, left = _left_padded()
    right = left.flip(1)
    holes = torch.ones_like(ids)
    holes[0, 3:5] = 0
    with torch.no_grad():
        for mask in (left, right, holes, right.bool()):
            real = mask.bool()
            close(fast(ids, attention_mask=mask).logits[real], plain(ids, attention_mask=mask).logits[real])
    on_engine(fast)


def test_right_padding_generates_by_transformers_loop():
    plain, fast = pair("llama")
    ids, mask = _left_padded()
    mask = mask.flip(1)
    assert torch.equal(
        fast.generate(ids, attention_mask=mask, **GREEDY), plain.generate(ids, attention_mask=mask, **GREEDY)
    )
    assert honed.report(fast).fallbacks == {"decode loop: right padding": 1}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_continues_from_its_cache(name):
    plain, fast = pair(name)
    ids = prompt(2, 20)
    with torch.no_grad():
        whole = plain(ids).logits
        first = fast(ids[:, :9])
        assert isinstance(first.past_key_values, HonedCache)
        assert first.past_key_values.get_seq_length() == 9
        second = fast(ids[:, 9:19], past_key_values=first.past_key_values)
        third = fast(ids[:, 19:], past_key_values=second.past_key_values)
        close(torch.cat([first.logits, second.logits, third.logits], 1), whole)
        third.past_key_values.crop(-8)
        assert third.past_key_values.get_seq_length() == 12
        close(fast(ids[:, 12:], past_key_values=third.past_key_values).logits, whole[:, 12:])
        assert fast(ids, use_cache=False).past_key_values is None
    on_engine(fast)


def test_generates_on_from_a_cache_of_its_own():
    plain, fast = pair("llama")
    ids = prompt(1, 12)
    with torch.no_grad():
        cache = fast(ids[:, :-1]).past_key_values
        reference = plain(ids[:, :-1], past_key_values=DynamicCache()).past_key_values
    got = fast.generate(ids, past_key_values=cache, **GREEDY)
    assert torch.equal(got, plain.generate(ids, past_key_values=reference, **GREEDY))
    assert cache.get_seq_length() == reference.get_seq_length()


def test_positions_and_logits_to_keep():
    plain, fast = pair("llama")
    ids = prompt(2, 10)
    positions = torch.arange(5, 15)[None]
    with torch.no_grad():
        close(
            fast(ids, position_ids=positions, logits_to_keep=3).logits,
            plain(ids, position_ids=positions, logits_to_keep=3).logits,
        )
        close(fast(ids, logits_to_keep=50).logits, plain(ids).logits)
        assert torch.equal(fast(ids, logits_to_keep=-3).logits, plain(ids, logits_to_keep=-3).logits)
        assert isinstance(fast(ids, return_dict=False), tuple)
        close(fast(ids, return_dict=False)[0], plain(ids, return_dict=False)[0])
        packed = torch.cat([torch.arange(4), torch.arange(6)])[None].expand(2, -1)
        close(
            fast(ids, position_ids=packed, use_cache=False).logits,
            plain(ids, position_ids=packed, use_cache=False).logits,
        )
    assert honed.report(fast).fallbacks == {
        "logits_to_keep is negative": 1,
        "position_ids packs several sequences": 1,
    }


def test_negative_positions_under_the_mask():
    plain, fast = pair("llama")
    ids, mask = _left_padded()
    positions = mask.cumsum(-1) - 1
    given = {"attention_mask": mask, "position_ids": positions}
    with torch.no_grad():
        close(fast(ids, **given).logits[mask.bool()], plain(ids, **given).logits[mask.bool()])
    assert torch.equal(fast.generate(ids, **given, **GREEDY), plain.generate(ids, **given, **GREEDY))
    on_engine(fast)
    with torch.no_grad():
        close(fast(ids, position_ids=positions - 2).logits, plain(ids, position_ids=positions - 2).logits)
    assert honed.report(fast).fallbacks == {
        "position_ids is negative at a token that attention_mask keeps": 1
    }


def test_a_cache_that_was_reset_takes_another_batch():
    plain, fast = pair("llama")
    with torch.no_grad():
        cache = fast(prompt(2)).past_key_values
        cache.reset()
        close(fast(prompt(3), past_key_values=cache).logits, plain(prompt(3)).logits)
        assert cache.batch_size == 3
    on_engine(fast)


def test_a_cache_of_another_model_is_refused():
    (_, fast), (_, other) = pair("llama"), pair("llama")
    step = prompt(2, 1)
    with torch.no_grad():
        cache = other(prompt()).past_key_values
        with pytest.raises(ValueError, match="11 tokens of another model"):
            fast(step, past_key_values=cache)
        other.lm_head.weight.mul_(2)  # packed again: still its own
        assert other(step, past_key_values=cache).past_key_values is cache
        cache.reset()
        assert fast(prompt(), past_key_values=cache).past_key_values is cache


def test_loss():
    plain, fast = pair("qwen2")
    ids = prompt(2, 10)
    labels = ids.clone()
    labels[:, :4] = -100
    with torch.no_grad():
        close(fast(ids, labels=labels).loss, plain(ids, labels=labels).loss)
    on_engine(fast)


def test_16_bit_models():
    for dtype in (torch.bfloat16, torch.float16):
        plain = make("llama").to(dtype)
        fast = honed.hone(copy.deepcopy(plain))
        exact = copy.deepcopy(plain).float()
        with torch.no_grad():
            got, own, reference = (m(prompt()).logits for m in (fast, plain, exact))
        assert got.dtype == dtype
        assert (got.float() - reference).abs().max() <= (own.float() - reference).abs().max()
        on_engine(fast)


SAMPLING = [
    {"temperature": 0.7},
    {"top_k": 5},
    {"top_p": 0.8, "top_k": 0},
    {"min_p": 0.1, "temperature": 1.5, "top_k": 20, "top_p": 0.95},
]


@pytest.mark.parametrize("options", SAMPLING, ids=str)
def test_sampling_is_reproducible(options):
    fast = honed.hone(make("llama"))
    ids = prompt()

    def run(seed):
        torch.manual_seed(seed)
        return fast.generate(ids, do_sample=True, max_new_tokens=20, num_return_sequences=3, **options)

    one, same, other = run(7), run(7), run(8)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape[0] == 6
    assert len({tuple(row.tolist()) for row in one[:3]}) > 1
    on_engine(fast)


def test_sampling_follows_the_distribution():
    plain, fast = pair("llama")
    ids = prompt(1, 6)
    with torch.no_grad():
        expected = (plain(ids).logits[0, -1] / 1.3).softmax(-1)
    torch.manual_seed(1)
    rows = 4000
    drawn = fast.generate(
        ids, do_sample=True, temperature=1.3, top_k=0, max_new_tokens=1, num_return_sequences=rows
    )[:, -1]
    counts = torch.bincount(drawn, minlength=VOCABULARY).double()
    # Each count is binomial: five standard deviations, over 259 tokens, fail once in some 7000 runs.
    spread = (rows * expected * (1 - expected)).sqrt().double()
    assert ((counts - rows * expected).abs() <= 5 * spread + 1).all()
    torch.manual_seed(1)
    few = fast.generate(ids, do_sample=True, top_k=3, max_new_tokens=1, num_return_sequences=200)[:, -1]
    assert set(few.tolist()) == set(expected.topk(3).indices.tolist())


def test_stops_and_pads_after_eos():
    plain, fast = pair("llama")
    ids = prompt(3, 7)
    tokens = plain.generate(ids, **GREEDY)[:, 7:]
    stops = [tokens[0, 4].item(), tokens[1, 9].item()]
    options = {**GREEDY, "eos_token_id": stops, "pad_token_id": 2}
    expected = plain.generate(ids, **options)
    assert (expected == 2).any()
    assert torch.equal(fast.generate(ids, **options), expected)
    on_engine(fast)


class _Heard(BaseStreamer):
    def __init__(self):
        self.parts, self.ended = [], False

    def put(self, value):
        self.parts.append(value.reshape(-1).tolist())

    def end(self):
        self.ended = True


def test_streams_as_transformers_does():
    plain, fast = pair("llama")
    ids = prompt(1, 7)
    heard = {}
    for name, model in (("plain", plain), ("fast", fast)):
        heard[name] = _Heard()
        model.generate(ids, streamer=heard[name], **GREEDY)
    assert heard["fast"].parts == heard["plain"].parts
    assert heard["fast"].ended
    on_engine(fast)


def test_text_streamer_and_pipeline(tokenizer):
    plain, fast = pair("llama")
    texts = ["Call me", "It was the best of times"]
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    fast.generate(**tokenizer(texts[:1], return_tensors="pt"), streamer=streamer, **GREEDY)
    ours, theirs = (
        pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")(
            texts, batch_size=2, max_new_tokens=16, do_sample=False
        )
        for model in (fast, plain)
    )
    assert ours == theirs
    streamed = "".join(streamer)
    assert streamed.startswith(ours[0][0]["generated_text"][len(texts[0]) :])
    on_engine(fast)


class Shifted(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores.roll(1, -1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"watermarking_config": {"bias": 2.5}}, "decode loop: WatermarkLogitsProcessor"),
        ({"logits_processor": [Shifted()]}, "decode loop: Shifted"),
        ({"use_cache": False}, "decode loop: use_cache is off"),
        ({"prompt_lookup_num_tokens": 3}, None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_other_options_run_transformers_loop_on_our_forward(options, reason):
    plain, fast = pair("llama")
    ids = prompt(1)
    got, expected = (model.generate(ids, **GREEDY, **options) for model in (fast, plain))
    assert torch.equal(got, expected)
    found = honed.report(fast)
    assert dict(found.fallbacks) == ({reason: 1} if reason else {})
    assert found.calls > 5


def test_defaults_of_generation_config_count():
    plain, fast = pair("llama")
    for model in (plain, fast):
        model.generation_config.repetition_penalty = 1.5
        model.generation_config.max_new_tokens = 12
    assert torch.equal(fast.generate(prompt()), plain.generate(prompt()))
    on_engine(fast)


def test_top_p_of_zero_keeps_the_best_token():
    plain, fast = pair("llama")
    options = {"do_sample": True, "top_p": 0.0, "top_k": 0, "max_new_tokens": 8}
    assert torch.equal(fast.generate(prompt(), **options), plain.generate(prompt(), **options))
    assert honed.report(fast).fallbacks == {"decode loop: top_p is not above 0": 1}


def test_beam_sampling_runs_on_our_forward():
    _, fast = pair("llama")
    torch.manual_seed(0)
    out = fast.generate(prompt(), do_sample=True, num_beams=2, num_return_sequences=2, max_new_tokens=8)
    assert out.shape == (4, 19)
    on_engine(fast)


def test_beyond_the_limit_torch_goes_on():
    plain, fast = pair("llama")
    ids = prompt(1, 129)
    high = torch.arange(100, 111)[None]
    with torch.no_grad():
        assert torch.equal(fast(ids).logits, plain(ids).logits)
        positions = high + 30
        assert torch.equal(
            fast(prompt(1), position_ids=positions).logits, plain(prompt(1), position_ids=positions).logits
        )
    assert honed.report(fast).fallbacks == {
        "129 tokens are more than the 128 positions of the model": 1,
        "position_ids goes up to 140, the engine to 127": 1,
    }
    for given in ({"inputs": prompt(1, 128)}, {"inputs": prompt(1), "position_ids": high}):
        fast._honed.fallbacks.clear()
        assert torch.equal(fast.generate(**given, **GREEDY), plain.generate(**given, **GREEDY))
        assert any(
            "leaves no room below the limit of 128" in reason or "would go up to 133" in reason
            for reason in honed.report(fast).fallbacks
        )


def test_stops_at_the_limit_with_a_warning():
    _, fast = pair("llama")
    with pytest.warns(UserWarning, match="128 positions"):
        assert fast.generate(prompt(1, 120), **GREEDY).shape[1] <= 128


def test_bad_tokens_are_refused():
    _, fast = pair("llama")
    with torch.no_grad(), pytest.raises(ValueError, match=str(VOCABULARY)):
        fast(torch.tensor([[1, VOCABULARY]]))


def test_empty_prompts_as_in_transformers():
    plain, fast = pair("llama")
    for call in (
        lambda model: model.generate(torch.zeros(1, 0, dtype=torch.long), **GREEDY),
        lambda model: model.generate(max_new_tokens=4, do_sample=False).tolist(),
    ):
        outcomes = []
        for model in (plain, fast):
            try:
                outcomes.append(("value", call(model)))
            except Exception as error:
                outcomes.append((type(error), str(error)))
        assert str(outcomes[0]) == str(outcomes[1])


def test_sliding_window():
    plain, fast = pair("mistral", sliding_window=16)
    with torch.no_grad():
        close(fast(prompt(2, 16)).logits, plain(prompt(2, 16)).logits)
        on_engine(fast)
        close(fast(prompt(2, 17)).logits, plain(prompt(2, 17)).logits)
    assert honed.report(fast).fallbacks == {"17 tokens are more than the sliding window of 16": 1}
    ids = prompt(1, 10)
    assert torch.equal(fast.generate(ids, **GREEDY), plain.generate(ids, **GREEDY))

"""Contrastive search against the published definition, computed without any cache."""

import pytest
import torch
from tests.generation.models import NAMES, first, full, pair, states
from tests.hf.conftest import prompt
from torch.nn.functional import cosine_similarity
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

import honed
from honed.generation.contrastive_search import _Past

NEW = 8


@torch.no_grad()
def reference(model, ids, alpha, top_k, new=NEW, processors=()):
    """Su et al. 2022, equation 5, for one row."""
    made, processors = first(model, ids), LogitsProcessorList(processors)
    for _ in range(new):
        whole = made if model.config.is_encoder_decoder else torch.cat((ids, made), 1)
        scores = processors(whole, full(model, ids, made).logits[:, -1].float())
        chances, candidates = scores.softmax(-1)[0].topk(top_k)
        longer = torch.cat((made.expand(top_k, -1), candidates[:, None]), 1)
        outputs = full(model, ids.expand(top_k, -1), longer, output_hidden_states=True)
        hidden = states(model, outputs)[-1]
        penalty = cosine_similarity(hidden[:, :-1], hidden[:, -1:], dim=-1).amax(1)
        best = ((1 - alpha) * chances - alpha * penalty).argmax()
        made = longer[best][None]
        if int(made[0, -1]) == model.config.eos_token_id:
            break
    return made[0].tolist() if model.config.is_encoder_decoder else [*ids[0].tolist(), *made[0].tolist()]


def _padded(rows, pad):
    longest = max(map(len, rows))
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("alpha", "top_k"), [(0.6, 4), (0.8, 7)])
def test_tokens_are_the_definitions(name, alpha, top_k):
    plain, fast = pair(name)
    ids = prompt(2, 9)
    got = fast.generate(ids, penalty_alpha=alpha, top_k=top_k, max_new_tokens=NEW)
    rows = [reference(plain, row[None], alpha, top_k) for row in ids]
    greedy = plain.generate(ids, do_sample=False, max_new_tokens=NEW)
    assert torch.equal(got, _padded(rows, plain.config.pad_token_id))
    assert got.shape != greedy.shape or not torch.equal(got, greedy)
    if name in ("llama", "gpt2"):
        assert not honed.report(fast).fallbacks


def test_padding_is_no_previous_token():
    plain, fast = pair("llama")
    ids = prompt(1, 9)
    alone = reference(plain, ids, 0.8, 5)
    # Padding that the row would be punished for, if it counted: its own next tokens.
    padded = torch.cat((torch.tensor([alone[9:13]]), ids), 1)
    both = torch.cat((padded, prompt(1, 13, seed=4)))
    mask = torch.ones_like(both)
    mask[0, :4] = 0
    got = fast.generate(both, attention_mask=mask, penalty_alpha=0.8, top_k=5, max_new_tokens=NEW)
    assert got[0, 4 : 4 + len(alone)].tolist() == alone
    assert not honed.report(fast).fallbacks


def test_processors_streamer_criteria_and_results():
    plain, fast = pair("gpt2")
    ids = prompt(1, 9)
    heard = []

    class Streamer:
        def put(self, value):
            heard.extend(value.reshape(-1).tolist())

        def end(self):
            heard.append("end")

    options = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": NEW, "repetition_penalty": 1.5}
    got = fast.generate(
        ids,
        streamer=Streamer(),
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **options,
    )
    row = reference(plain, ids, 0.6, 4, processors=[RepetitionPenaltyLogitsProcessor(1.5)])
    assert got.sequences[0].tolist() == row
    assert heard == [*row, "end"]
    assert len(got.scores) == len(got.logits) == len(row) - 9
    assert got.scores[0].shape == (1, plain.config.vocab_size)
    with torch.no_grad():
        raw = plain(ids).logits[:, -1]
    assert (got.logits[0] - raw).abs().max() < 1e-4 * raw.abs().max()
    assert not torch.equal(got.logits[0], got.scores[0])
    stopped = fast.generate(ids, stopping_criteria=[lambda ids, scores: ids[:, -1] == row[11]], **options)
    assert stopped[0].tolist() == row[:12]


def test_what_it_refuses():
    fast = pair("llama")[1]
    options = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 3}
    with pytest.raises(ValueError, match="contrastive search: use_cache is False"):
        fast.generate(prompt(), use_cache=False, **options)
    with pytest.raises(ValueError, match="contrastive search: cache_implementation is 'static'"):
        fast.generate(prompt(), cache_implementation="static", **options)
    with pytest.raises(ValueError, match=r"contrastive search: penalty_alpha is 1\.5"):
        fast.generate(prompt(), **{**options, "penalty_alpha": 1.5})
    with pytest.raises(ValueError, match="contrastive search: output_attentions"):
        fast.generate(prompt(), return_dict_in_generate=True, output_attentions=True, **options)


def test_the_models_limit():
    fast = pair("llama")[1]
    with pytest.warns(UserWarning, match="stops after 8 new tokens"):
        got = fast.generate(prompt(1, 120), penalty_alpha=0.6, top_k=4, max_new_tokens=30)
    assert got.shape[1] <= 128


def test_padding_is_not_looked_at():
    hidden = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    real = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    past = _Past(hidden, real != 0, 3)
    states = torch.nn.functional.normalize(hidden[:, [0, 4]], dim=-1)  # one is padding, one a token
    got = past.closest(states)
    own = cosine_similarity(states[:, :, None], hidden[:, None], dim=-1)
    assert torch.allclose(got[0], own[0, :, 2:].amax(-1)) and got[0, 0] < 0.99
    assert torch.allclose(got[1], torch.ones(2))
    past.add(states[:, 0])
    assert torch.allclose(past.closest(states)[:, 0], torch.ones(2))

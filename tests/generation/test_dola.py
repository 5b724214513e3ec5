"""DoLa against the published definition, computed without any cache."""

import math
from types import SimpleNamespace

import pytest
import torch
from tests.generation.models import first, full, pair
from tests.hf.conftest import prompt
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

import honed
from honed.generation.dola import candidate_layers

NEW = 8
NAMES = ("llama", "gpt2", "opt")


def _next(model, ids, layers):
    """Scores of one row's next token: Chuang et al. 2023, equations 1 to 5."""
    outputs = full(model, ids, first(model, ids), output_hidden_states=True)
    p = outputs.logits[0, -1].double().softmax(-1)
    head = model.get_output_embeddings()
    found = []
    for layer in layers:
        q = head(outputs.hidden_states[layer][0, -1]).double().softmax(-1)
        m = (p + q) / 2
        found.append((0.5 * (p * (p / m).log()).sum() + 0.5 * (q * (q / m).log()).sum(), q))
    _, q = max(found, key=lambda pair: float(pair[0]))
    return torch.where(p >= 0.1 * p.max(), p.log() - q.log(), -math.inf)[None]


@torch.no_grad()
def reference(model, ids, layers, processors=()):
    for _ in range(NEW):
        scores = LogitsProcessorList(processors)(ids, _next(model, ids, layers))
        ids = torch.cat((ids, scores.argmax(-1, keepdim=True)), 1)
        if int(ids[0, -1]) == model.config.eos_token_id:
            break
    return ids[0].tolist()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layers", ["low", "high", [0], [1, 2], [0, 1, 2]])
def test_tokens_are_the_definitions(name, layers):
    plain, fast = pair(name)
    ids = prompt(2, 9)
    got = fast.generate(ids, dola_layers=layers, max_new_tokens=NEW)
    chosen = candidate_layers(layers, plain.config)
    rows = [reference(plain, row[None], chosen) for row in ids]
    for row, expected in zip(got.tolist(), rows, strict=True):
        assert row[: len(expected)] == expected
        assert set(row[len(expected) :]) <= {plain.config.pad_token_id}
    if name != "opt":
        assert not honed.report(fast).fallbacks


def test_the_rows_differ_from_greedy_and_by_layers():
    fast = pair("llama")[1]
    ids = prompt(2, 9)
    texts = [fast.generate(ids, max_new_tokens=NEW, do_sample=False)]
    texts += [fast.generate(ids, max_new_tokens=NEW, dola_layers=layers) for layers in ([0], [3])]
    assert len({tuple(text.reshape(-1).tolist()) for text in texts}) == 3


def test_sampling_draws_from_the_contrasted_scores():
    plain, fast = pair("llama", vocab_size=24)
    ids = prompt(1, 9) % 20 + 3
    with torch.no_grad():
        expected = _next(plain, ids, [1, 2])[0].softmax(-1)
    torch.manual_seed(0)
    count = 4000
    drawn = fast.generate(
        ids.repeat(count, 1), dola_layers=[1, 2], do_sample=True, top_k=0, max_new_tokens=1
    )[:, -1]
    seen = torch.bincount(drawn, minlength=24).double()
    likely = expected * count >= 5
    assert not seen[expected == 0].any()
    chi = ((seen - expected * count) ** 2 / (expected * count))[likely].sum()
    degrees = int(likely.sum()) - 1
    assert degrees >= 1
    assert chi < degrees + 5 * math.sqrt(2 * degrees)


def test_processors_and_results():
    plain, fast = pair("llama")
    ids = prompt(1, 9)
    got = fast.generate(
        ids,
        dola_layers="high",
        repetition_penalty=1.2,
        max_new_tokens=NEW,
        return_dict_in_generate=True,
        output_scores=True,
    )
    row = reference(
        plain, ids, candidate_layers("high", plain.config), [RepetitionPenaltyLogitsProcessor(1.2)]
    )
    assert got.sequences[0].tolist() == row
    assert len(got.scores) == len(row) - 9


@pytest.mark.parametrize(
    ("asked", "layers", "tied", "expected"),
    [
        ("low", 12, True, [2, 4]),
        ("low", 12, False, [0, 2, 4]),
        ("high", 12, True, [6, 8, 10]),
        ("low", 48, True, list(range(2, 20, 2))),
        ("high", 48, True, list(range(28, 48, 2))),
        ("low", 4, True, [2]),
        ("low", 2, True, [1]),
        ([0, 3, 12], 12, True, [0, 3]),
    ],
)
def test_layers_are_those_of_transformers(asked, layers, tied, expected):
    config = SimpleNamespace(num_hidden_layers=layers, tie_word_embeddings=tied)
    assert candidate_layers(asked, config) == expected


def test_what_it_refuses():
    fast = pair("llama")[1]
    for layers, text in (("middle", "expected 'low', 'high' or a list"), ([9], "some of 0 to 3")):
        with pytest.raises(ValueError, match=text):
            fast.generate(prompt(), dola_layers=layers, max_new_tokens=3)
    with pytest.raises(TypeError, match="expected whole numbers"):
        fast.generate(prompt(), dola_layers=[0.5], max_new_tokens=3)
    with pytest.raises(ValueError, match="dola: the model is an encoder-decoder"):
        pair("t5")[1].generate(prompt(), dola_layers="low", max_new_tokens=3)

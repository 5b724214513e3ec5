"""Diverse and constrained beam search against their published definitions, also beside encoders."""

import pytest
import torch
from tests.hf.beam_reference import constrained, diverse, progress, scorer
from tests.hf.conftest import on_engine, pair, prompt
from tests.hf.test_stepper import encoder_decoders

from honed.generation.constrained_beam_search import constrained_beam_search
from honed.generation.constraints import DisjunctiveConstraint, PhrasalConstraint, Progress
from honed.generation.group_beam_search import group_beam_search

NEW = 9
PADS = (0, 3)


def inputs(ids):
    mask = torch.ones_like(ids)
    for row, count in enumerate(PADS[: len(ids)]):
        mask[row, :count] = 0
    return {"input_ids": torch.where(mask.bool(), ids, 2), "attention_mask": mask}


def texts_of(out, length):
    """New tokens of every returned text, without what is after its end."""
    counts = (out.beam_indices >= 0).sum(1).tolist()
    return [row[length : length + n] for row, n in zip(out.sequences.tolist(), counts, strict=True)]


def eos_of(model, ids, count):
    """Tokens that the model likes."""
    made = model.generate(**inputs(ids), do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW)
    return made[:, ids.shape[1] :].flatten().unique().tolist()[1 :: max(1, 6 // max(count, 1))][:count]


def check(ours, plain, ids, method, reference, returned, eos, **options):
    """Every returned text of every prompt is the reference's."""
    out = ours.generate(
        **inputs(ids),
        max_new_tokens=NEW,
        num_return_sequences=returned,
        eos_token_id=eos or None,
        pad_token_id=2,
        custom_generate=method,
        trust_remote_code=True,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    got, scores = texts_of(out, ids.shape[1]), out.sequences_scores.tolist()
    for row, some in enumerate(ids.tolist()):
        own = some[PADS[row] :]
        texts, totals = reference(scorer(plain), own)[:2]
        expected = [text[len(own) :] for text in texts[:returned]]
        mine = slice(row * returned, (row + 1) * returned)
        assert got[mine] == expected
        assert scores[mine] == pytest.approx(totals[:returned], abs=1e-3)
    # A text follows from the rows that beam_indices names.
    assert out.beam_indices.shape[1] == out.sequences.shape[1] - ids.shape[1]
    assert len(out.scores) >= out.beam_indices.shape[1]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize(("beams", "groups"), [(4, 2), (6, 3), (3, 3), (4, 1)])
@pytest.mark.parametrize("penalty", [0.0, 0.7, 5.0])
def test_diverse(name, beams, groups, penalty):
    plain, ours = pair(name)
    ids = prompt(2, 8)
    eos = eos_of(plain, ids, 2)
    check(
        ours,
        plain,
        ids,
        group_beam_search,
        lambda score, own: diverse(score, own, beams, groups, penalty, NEW, eos),
        returned=beams,
        eos=eos,
        num_beams=beams,
        num_beam_groups=groups,
        diversity_penalty=penalty,
    )
    on_engine(ours)


@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 2.0])
def test_ends(early, length_penalty):
    plain, ours = pair("llama")
    ids = prompt(2, 8, seed=6)
    eos = eos_of(plain, ids, 2)
    rules = {"length_penalty": length_penalty, "early_stopping": early}
    check(
        ours,
        plain,
        ids,
        group_beam_search,
        lambda score, own: diverse(score, own, 4, 2, 0.5, NEW, eos, length_penalty, early),
        returned=4,
        eos=eos,
        num_beams=4,
        num_beam_groups=2,
        diversity_penalty=0.5,
        **rules,
    )
    words = [[31, 32]]
    check(
        ours,
        plain,
        ids,
        constrained_beam_search,
        lambda score, own: constrained(score, own, [words], 4, NEW, eos, length_penalty, early),
        returned=3,
        eos=eos,
        num_beams=4,
        force_words_ids=words,
        **rules,
    )


CASES = {
    "a phrase": [[20, 21, 22]],
    "two phrases": [[20, 21], [33]],
    "one of two": [[[20, 21], [40, 41, 42]]],
    "both kinds": [[50], [[60, 61], [62]], [70, 71]],
    "overlapping": [[20, 20, 21], [20, 22]],
}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("beams", [2, 5])
def test_constrained(name, case, beams):
    plain, ours = pair(name)
    ids = prompt(2, 8)
    eos = eos_of(plain, ids, 1)
    words = CASES[case]
    nested = [entry if isinstance(entry[0], list) else [entry] for entry in words]
    check(
        ours,
        plain,
        ids,
        constrained_beam_search,
        lambda score, own: constrained(score, own, nested, beams, NEW, eos),
        returned=beams,
        eos=eos,
        num_beams=beams,
        force_words_ids=words,
    )
    on_engine(ours)
    best = ours.generate(
        **inputs(ids),
        max_new_tokens=NEW + 6,
        eos_token_id=eos,
        pad_token_id=2,
        num_beams=beams,
        force_words_ids=words,
        custom_generate=constrained_beam_search,
        trust_remote_code=True,
    )
    for text in best[:, 8:].tolist():
        for phrases in nested:
            assert any(text[i : i + len(p)] == p for p in phrases for i in range(len(text)))


def test_processors_come_before_the_choice():
    _, ours = pair("llama")
    for options in ({"num_beam_groups": 2, "diversity_penalty": 0.3}, {"force_words_ids": [[30]]}):
        method = group_beam_search if "num_beam_groups" in options else constrained_beam_search
        out = ours.generate(
            prompt(2, 6),
            num_beams=4,
            max_new_tokens=12,
            no_repeat_ngram_size=1,
            custom_generate=method,
            trust_remote_code=True,
            **options,
        )
        for row in out[:, 6:].tolist():
            assert len(set(row)) == len(row)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_beside_an_encoder(name):
    model = encoder_decoders()[name]
    source = prompt(2, 7) % 90 + 3
    start = [model.config.decoder_start_token_id]
    common = {"max_new_tokens": 7, "num_beams": 4, "num_return_sequences": 4, "eos_token_id": 2}
    common |= {"pad_token_id": 1, "trust_remote_code": True, "forced_eos_token_id": None}
    common |= {
        "return_dict_in_generate": True,
        "min_length": 0,
        "no_repeat_ngram_size": 0,
        "forced_bos_token_id": None,
    }
    groups = {"num_beam_groups": 2, "diversity_penalty": 0.8, "custom_generate": group_beam_search}
    words = {"force_words_ids": [[8, 9]], "custom_generate": constrained_beam_search}
    for options, reference, given in (
        (groups, diverse, (4, 2, 0.8)),
        (words, constrained, ([[[8, 9]]], 4)),
    ):
        out = model.generate(source, **common, **options)
        got = texts_of(out, 1)
        for row in range(2):
            score = scorer(model, input_ids=source[row : row + 1])
            expected = reference(score, start, *given, 7, (2,))[0]
            assert got[4 * row : 4 * row + 4] == [text[1:] for text in expected]


@pytest.mark.parametrize("options", [{"num_beam_groups": 2}, {"num_beams": 3, "num_beam_groups": -3}])
def test_groups_are_never_passed_over(options):
    _, ours = pair("llama")
    with pytest.raises(ValueError, match="group_beam_search: num_beam_groups is"):
        ours.generate(prompt(1, 4), max_new_tokens=3, **options)


def test_constraints_of_another_kind():
    _, ours = pair("llama")
    with pytest.raises(TypeError, match="constraints: 5, expected a honed"):
        ours.generate(prompt(1, 4), max_new_tokens=3, num_beams=2, constraints=[5])


def test_progress_is_that_of_the_whole_text():
    generator = torch.Generator().manual_seed(0)
    nested = [[[1, 2, 3]], [[1, 1], [2, 4]], [[5]]]
    constraints = [
        PhrasalConstraint([1, 2, 3]),
        DisjunctiveConstraint([[1, 1], [2, 4]]),
        PhrasalConstraint([5]),
    ]
    for _ in range(300):
        text = torch.randint(1, 6, (12,), generator=generator).tolist()
        now = Progress(constraints)
        for n, token in enumerate(text):
            now = now.after(token)
            *_, tokens, complete = progress(text[: n + 1], nested)
            assert (now.advance(), now.completed) == (tokens, complete)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (group_beam_search, {"num_beam_groups": 3}, "num_beam_groups is 3, expected a divisor"),
        (group_beam_search, {"num_beam_groups": 2, "do_sample": True}, "do_sample is True"),
        (constrained_beam_search, {"num_beams": 1, "force_words_ids": [[5]]}, "num_beams is 1"),
        (constrained_beam_search, {"do_sample": True, "force_words_ids": [[5]]}, "do_sample is True"),
        (constrained_beam_search, {"num_beam_groups": 2, "force_words_ids": [[5]]}, "num_beam_groups is 2"),
        (group_beam_search, {"num_beam_groups": -2}, "num_beam_groups is -2"),
        (group_beam_search, {"num_beams": 1, "num_beam_groups": 2}, "divisor of num_beams, 1"),
        (
            group_beam_search,
            {"return_dict_in_generate": True, "output_attentions": True},
            "output_attentions is set",
        ),
        (
            constrained_beam_search,
            {"return_dict_in_generate": True, "output_hidden_states": True, "force_words_ids": [[5]]},
            "output_hidden_states is set",
        ),
        (constrained_beam_search, {"force_words_ids": [[999]]}, r"token 999 in \[999\], expected one of"),
        (constrained_beam_search, {}, "neither constraints nor force_words_ids"),
        (constrained_beam_search, {"force_words_ids": [[]]}, r"phrase \[\], expected a list"),
        (constrained_beam_search, {"force_words_ids": [[-1]]}, "token -1 in phrase"),
        (constrained_beam_search, {"force_words_ids": [[[4, 5], [4]]]}, r"phrase \[4, 5\] begins with"),
    ],
)
def test_refusals(method, options, message):
    _, ours = pair("llama")
    with pytest.raises(ValueError, match=message):
        ours.generate(
            prompt(1, 4),
            max_new_tokens=3,
            custom_generate=method,
            trust_remote_code=True,
            **{"num_beams": 4, **options},
        )

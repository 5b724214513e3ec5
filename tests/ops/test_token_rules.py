"""Every rule against transformers' processor of that name, ours against their definition in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.token_rules_reference import EOS, PROMPT, VOCAB, bits, reference

from honed import _core


def rules_of(options, ignored=(0, 0), encoder=None):
    return [
        {
            **options,
            "eos_token_id": EOS,
            "prompt_length": PROMPT,
            "prompt_ignore_length": skip,
            "encoder_input_ids": None if encoder is None else encoder[row].tolist(),
        }
        for row, skip in enumerate(ignored)
    ]


def text(seed, length, rows=2, vocab=VOCAB):
    """Random tokens with parts said again, so that there is something to repeat."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.randint(0, vocab, (rows, length), generator=generator)
    for row in out:
        for _ in range(3 if length > 8 else 0):
            size = int(torch.randint(1, 1 + length // 3, (), generator=generator))
            source, target = torch.randint(0, length - size + 1, (2,), generator=generator).tolist()
            row[target : target + size] = row[source : source + size].clone()
        size = int(torch.randint(1, 2 + length // 2, (), generator=generator))
        source = int(torch.randint(0, length - size + 1, (), generator=generator))
        row[length - size :] = row[source : source + size].clone()
    return out


def noise(seed, dtype=torch.float32, vocab=VOCAB, rows=2):
    return (torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 4).to(dtype)


def check(options, *, seed=0, length=30, dtype=torch.float32, ignored=(0, 0), allowed=None, logits=None):
    """Same -inf, same values; where powers are taken, to the last bit but one."""
    logits = noise(seed, dtype) if logits is None else logits
    encoder = text(seed + 1, 12)
    history = text(seed, length)
    expected = reference(logits, history, options, ignored=ignored, encoder=encoder, allowed=allowed)
    rules = _core.TokenRules(rules_of(options, ignored, encoder))
    got = rules(logits, history, None if allowed is None else bits(allowed))
    assert got.dtype is torch.float32
    powers = "dry_multiplier" in options
    eps = torch.finfo(torch.float32).eps
    torch.testing.assert_close(
        got, expected, rtol=4 * eps if powers else 0, atol=32 * eps if powers else 0, equal_nan=True
    )
    return got


SINGLE = {
    "sequence_bias": {(4,): 2.5, (5, 6): -1.5, (9,): -math.inf, (1, 2, 6): 0.75, (8, 6): 3.0, (6,): 0.1},
    "logit_bias": {4: 2.5, 44: -3.25, 0: -math.inf},
    "encoder_repetition_penalty": 1.7,
    "repetition_penalty": 1.3,
    "presence_penalty": 0.6,
    "frequency_penalty": 0.3,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2,
    "bad_words_ids": [[4], [5, 6], [3], [7, 3], [1, 2, 6], [4]],
    "min_length": 31,
    "min_new_tokens": 26,
    "exponential_decay_length_penalty": (4, 1.1),
    "suppress_tokens": [0, 9, 44, 45, 500],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", SINGLE)
def test_one_rule(name, dtype):
    for seed in range(8):
        got = check({name: SINGLE[name]}, seed=seed, dtype=dtype)
        assert not torch.equal(got, noise(seed, dtype).float()) or "ngram" in name


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_ngrams_of_short_histories(size, length):
    check({"no_repeat_ngram_size": size}, length=length)
    check({"encoder_no_repeat_ngram_size": size}, length=length)


def test_a_repeated_end_is_banned():
    history = torch.tensor([[5, 6, 7, 8, 5, 6, 7]])
    for size in (1, 2, 3, 4):
        got = _core.TokenRules([{"no_repeat_ngram_size": size}])(torch.zeros(1, VOCAB), history)
        banned = {5, 6, 7, 8} if size == 1 else {8}
        assert set((got[0] == -math.inf).nonzero().flatten().tolist()) == banned


def test_lengths():
    """Each rule at, before and after the length at which it changes."""
    for length in range(1, 12):
        for options in (
            {"min_length": 6},
            {"min_new_tokens": 3},
            {"forced_bos_token_id": 11},
            {"forced_eos_token_id": [3, 8], "max_length": 9},
            {"forced_eos_token_id": 40, "max_length": 7},
            {"begin_suppress_tokens": [2, 3, 99]},
            {"exponential_decay_length_penalty": (2, 1.5)},
        ):
            check(options, length=length)


def test_padding_is_no_history():
    check({"repetition_penalty": 1.4}, ignored=(0, 11))
    check({"repetition_penalty": 1.4}, ignored=(30, 29))
    check({"presence_penalty": 0.5, "frequency_penalty": 0.25, "penalty_window": 9}, ignored=(26, 3))


def test_tokens_beyond_the_vocabulary_are_passed_over():
    history = text(0, 20, vocab=2 * VOCAB)
    for options in ({"repetition_penalty": 1.4}, {"no_repeat_ngram_size": 1}, {"presence_penalty": 1.0}):
        got = _core.TokenRules(rules_of(options))(noise(0), history)
        assert torch.equal(got, reference(noise(0), history, options))


@pytest.mark.parametrize("options", [{}, {"suppress_tokens": [1]}, {"repetition_penalty": 2.0}], ids=str)
def test_invalid_values(options):
    logits = noise(0)
    logits[0, 3], logits[0, 44], logits[1, 7], logits[1, 0] = math.nan, math.inf, -math.inf, math.inf
    check({"remove_invalid_values": True, **options}, logits=logits)
    check({"remove_invalid_values": True, "constrained": True, **options}, allowed=[[1, 2, 5], [40, 44]])


def test_allowed_tokens():
    check({"constrained": True}, allowed=[[1, 44, 3], [31, 32, 33]])
    logits = noise(0)
    logits[0, [1, 44]] = -math.inf
    got = check({"constrained": True}, allowed=[[1, 44], [5]], logits=logits)
    assert got[0, 1] == got[0, 44] == 0  # the set holds, where the model has nothing for it
    check({"constrained": True, "suppress_tokens": [44]}, allowed=[[1, 44], [5]], logits=logits)
    check({"constrained": True, "bad_words_ids": [[1], [5]]}, allowed=[[1], [5, 6]])


def test_a_mask_for_no_rule_changes_nothing():
    logits = noise(0)
    assert torch.equal(_core.TokenRules([{}, {}])(logits, text(0, 9), bits([[1], [2]])), logits)


@pytest.mark.parametrize("breakers", [[], [7], [[7, 8]], [7, [1, 2], [1, 2, 3], 30]], ids=str)
@pytest.mark.parametrize("window", [0, 3, 17, 64])
def test_dry(breakers, window):
    for seed in range(30):
        options = {"dry_multiplier": 0.8, "dry_sequence_breakers": breakers, "dry_window": window}
        options |= {"dry_allowed_length": 1 + seed % 3, "dry_base": 1.75 if seed % 2 else 1.0}
        for length in (1, 2, 3, 40):
            check(options, seed=seed, length=length)
        history = text(seed, 60, vocab=4)  # nearly all of it repeats
        options["dry_sequence_breakers"] = [b for b in breakers if isinstance(b, list)] + [3]
        got = _core.TokenRules(rules_of(options))(noise(seed), history)
        torch.testing.assert_close(got, reference(noise(seed), history, options), rtol=1e-6, atol=1e-6)


def test_dry_says_what_the_definition_says():
    # ... a b c x ... a b c: x would lengthen a repetition of 3.
    history = torch.tensor([[1, 2, 3, 9, 8, 1, 2, 3]])
    got = _core.TokenRules([{"dry_multiplier": 0.5, "dry_base": 2.0}])(torch.zeros(1, VOCAB), history)
    assert got[0, 9] == -1.0  # 0.5 * 2^(3 - 2)
    assert got.count_nonzero() == 1
    cut = {"dry_multiplier": 0.5, "dry_base": 2.0, "dry_sequence_breakers": [2]}
    assert not _core.TokenRules([cut])(torch.zeros(1, VOCAB), history).any()  # behind 2: only "3" repeats


def test_no_other_token_stands_for_one_beyond_32_bits():
    history = torch.tensor([[4, 2**32 + 1, 4]])
    rules = {
        "dry_multiplier": 1.0,
        "dry_allowed_length": 1,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 2.0,
        "presence_penalty": 1.0,
    }
    got = _core.TokenRules([rules])(torch.zeros(1, VOCAB), history)
    assert got.nonzero().tolist() == [[0, 4]]


def test_lengths_beyond_any_count():
    most = 2**63 - 1
    x, history = torch.ones(1, VOCAB), torch.zeros(1, 1, dtype=torch.int64)
    common = {"eos_token_id": 3, "prompt_length": 5}
    never = {
        "exponential_decay_length_penalty": (most, 2.0),
        "begin_suppress_tokens": [4],
        "begin_index": most,
    }
    assert torch.equal(_core.TokenRules([common | never])(x, history), x)
    got = _core.TokenRules([common | {"min_new_tokens": most}])(x, history)
    assert (got == -torch.inf).nonzero().tolist() == [[0, 3]]


def test_an_end_named_twice_decays_once():
    once, twice = (
        _core.TokenRules([{"eos_token_id": ends, "exponential_decay_length_penalty": (0, 2.0)}])(
            torch.full((1, VOCAB), 3.0), torch.zeros(1, 2, dtype=torch.int64)
        )
        for ends in ([2, 7], [7, 2, 7])
    )
    assert torch.equal(once, twice)


def test_long_repetitions_stay_finite():
    got = _core.TokenRules([{"dry_multiplier": 5.0, "dry_base": 4.0}])(
        torch.zeros(1, VOCAB), torch.ones(1, 3000, dtype=torch.int64)
    )
    assert got[0, 1] == -torch.finfo(torch.float32).max


rule_values = st.fixed_dictionaries(
    {},
    optional={
        "sequence_bias": st.sampled_from([SINGLE["sequence_bias"], {(3,): 1.0}, {(6, 7): -2.0, (7,): 0.5}]),
        "logit_bias": st.dictionaries(
            st.integers(0, VOCAB - 1), st.sampled_from([-2.0, 0.3, 5.0]), max_size=6
        ),
        "encoder_repetition_penalty": st.sampled_from([0.8, 1.5]),
        "repetition_penalty": st.sampled_from([0.7, 1.2]),
        "presence_penalty": st.sampled_from([0.5, -0.25]),
        "frequency_penalty": st.sampled_from([0.5, 0.125]),
        "penalty_window": st.sampled_from([0, 1, 7]),
        "no_repeat_ngram_size": st.integers(1, 4),
        "encoder_no_repeat_ngram_size": st.integers(1, 3),
        "bad_words_ids": st.lists(
            st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=3), min_size=1, max_size=8
        ),
        "min_length": st.integers(1, 30),
        "min_new_tokens": st.integers(1, 30),
        "constrained": st.just(True),
        "forced_bos_token_id": st.just(9),
        "forced_eos_token_id": st.sampled_from([3, [3, 7]]),
        "remove_invalid_values": st.just(True),
        "exponential_decay_length_penalty": st.sampled_from([(0, 1.2), (6, 1.05)]),
        "suppress_tokens": st.lists(st.integers(0, VOCAB + 5), min_size=1, max_size=5),
        "begin_suppress_tokens": st.just([1, 3]),
    },
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    rule_values,
    st.integers(0, 1000),
    st.sampled_from([1, 4, 5, 8, 25]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([(0, 0), (2, 0)]),
    st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9), min_size=2, max_size=2),
)
def test_rules_together(options, seed, length, dtype, ignored, allowed):
    options = {**options, "max_length": 9}
    ignored = tuple(min(skip, length) for skip in ignored)
    check(options, seed=seed, length=length, dtype=dtype, ignored=ignored, allowed=allowed)


def test_state_follows_the_history():
    """A growing history, one that jumps, and one of another row: as if it were seen for the first time."""
    options = {
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "penalty_window": 10,
        "no_repeat_ngram_size": 2,
    }
    kept = _core.TokenRules(rules_of(options, (2, 0)))
    full, other = text(3, 200), text(4, 200)
    parts = [full[:, :n] for n in range(1, 40)] + [full[:, :150], full[:, :151], full[:, :60], other[:, :61]]
    parts += [torch.cat([full[:1, :62], other[:1, :62]]), full[:, :3], full[:, :4]]
    for part in parts:
        fresh = _core.TokenRules(rules_of(options, (2, 0)))
        assert torch.equal(kept(noise(part.shape[1]), part), fresh(noise(part.shape[1]), part))


def test_other_vocabulary_on_the_way():
    kept = _core.TokenRules(rules_of({"repetition_penalty": 1.2, "encoder_repetition_penalty": 1.5},
                                     encoder=text(1, 12)))  # fmt: skip
    history = text(0, 20)
    for vocab in (VOCAB, 20, VOCAB):
        got = kept(noise(0, vocab=vocab), history)
        encoder = text(1, 12)
        fresh = _core.TokenRules(
            rules_of({"repetition_penalty": 1.2, "encoder_repetition_penalty": 1.5}, encoder=encoder)
        )
        assert torch.equal(got, fresh(noise(0, vocab=vocab), history))


def test_dicts_in_a_list_are_done_in_that_order():
    logits, history = noise(0), text(0, 20)
    rows = [[{"logit_bias": {5: 100.0}}, {"repetition_penalty": 2.0}]] * 2
    turned = [list(reversed(row)) for row in rows]
    history[:, 0] = 5
    first, second = (_core.TokenRules(each)(logits, history) for each in (rows, turned))
    assert torch.equal(first[:, 5], (logits[:, 5] + 100) / 2)
    x = logits[:, 5]
    assert torch.equal(second[:, 5], torch.where(x < 0, x * 2, x / 2) + 100)


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ({"repetition": 1.2}, ValueError, "no rule named 'repetition'"),
        ({"repetition_penalty": 0.0}, ValueError, "repetition_penalty is 0, expected a number above 0"),
        ({"repetition_penalty": 1e-50}, ValueError, "repetition_penalty is 1e-50"),
        ({"encoder_repetition_penalty": 1e300}, ValueError, "encoder_repetition_penalty is 1e.300"),
        ({"repetition_penalty": "a"}, TypeError, "repetition_penalty is or holds a str"),
        ({"presence_penalty": math.nan}, ValueError, "presence_penalty is nan, expected a finite number"),
        ({"dry_multiplier": 1.0, "dry_base": 0.5}, ValueError, "dry_base is 0.5, expected at least 1"),
        ({"dry_multiplier": 1.0, "dry_allowed_length": 0}, ValueError, "dry_allowed_length is 0"),
        ({"dry_multiplier": 1.0, "dry_sequence_breakers": ["\n"]}, TypeError, "dry_sequence_breakers"),
        ({"bad_words_ids": [[]]}, ValueError, "bad_words_ids holds an empty sequence"),
        ({"no_repeat_ngram_size": -1}, ValueError, "no_repeat_ngram_size is -1, expected at least 0"),
        ({"forced_eos_token_id": 1}, ValueError, "without max_length"),
        ({"sequence_bias": {(VOCAB,): 1.0}}, ValueError, f"names token {VOCAB}"),
        ({"forced_bos_token_id": VOCAB}, ValueError, f"names token {VOCAB}"),
        ({"logit_bias": {-1: 1.0}}, ValueError, "names token -1"),
        (5, TypeError, "rules are a int, expected a dict or a list of dicts"),
    ],
    ids=str,
)
def test_refusals(rules, error, message):
    with pytest.raises(error, match=message):
        _core.TokenRules([rules, rules])(noise(0), text(0, 1))


def test_refuses_shapes_and_an_empty_set():
    rules = _core.TokenRules([{"constrained": True}] * 2)
    with pytest.raises(ValueError, match="logits have 3 rows, expected 2"):
        rules(noise(0, rows=3), text(0, 5))
    with pytest.raises(ValueError, match="history is int32"):
        rules(noise(0), text(0, 5).int())
    with pytest.raises(ValueError, match="allowed is int32 of shape"):
        rules(noise(0), text(0, 5), torch.zeros(2, 1, dtype=torch.int32))
    with pytest.raises(ValueError, match="no token is allowed"):
        rules(noise(0), text(0, 5), bits([[1], []]))
    assert torch.isfinite(rules(noise(0), text(0, 5), bits([[1], [2]]))).sum() == 2  # and goes on

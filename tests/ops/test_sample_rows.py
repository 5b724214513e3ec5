"""What a row gets beside its filters: edits, masks, options, log-probabilities; and what it does not know."""

import numpy as np
import pytest
import torch
import transformers as tf
from tests.ops.sample_reference import choose, filtered

from honed import _core, ops
from honed.testing import cpu_level

LEVELS = _core.usable_levels()
LOGPROB = 3e-7  # the relative error that is documented
MANY = [
    {},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.3},
    {"top_p": 0.9},
    {"top_p": 0.9, "min_p": 0.02, "xtc_probability": 0.5},
    {"typical_p": 0.8},
    {"epsilon_cutoff": 2e-3},
    {"eta_cutoff": 2e-3},
    {"top_h": 0.5},
    {"top_n_sigma": 1.5},
    {"dynatemp_range": 0.5, "top_k": 2000},
    {"mirostat": 1},
    {"mirostat": 2},
    {"do_sample": False, "presence_penalty": 3.0},
]


def noise(seed, rows, vocab, spread=2.0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def tokens_so_far(rows, vocab, length=40):
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("options", MANY, ids=str)
def test_same_token_at_every_level_and_thread_count(options):
    logits, history = noise(0, 9, 12001), tokens_so_far(9, 12001)
    for counter in range(6):
        seen = []
        for level in LEVELS:
            for threads in (1, 2):
                with cpu_level(level):
                    torch.set_num_threads(threads)
                    seen.append(
                        ops.sample(logits, seeds=range(9), counter=counter, history=history, **options)
                    )
        torch.set_num_threads(2)
        assert all(torch.equal(seen[0], other) for other in seen[1:])


@pytest.mark.parametrize("options", MANY, ids=str)
def test_a_row_does_not_know_its_batch(options):
    logits, history = noise(4, 7, 3001), tokens_so_far(7, 3001)
    together = ops.sample(logits, seeds=range(7), counter=2, history=history, **options)
    for row in range(7):
        part = slice(row, row + 1)
        alone = ops.sample(logits[part], seeds=[row], counter=2, history=history[part], **options)
        assert alone.item() == together[row]


def test_options_of_each_row():
    logits, history = noise(5, len(MANY), 801), tokens_so_far(len(MANY), 801)
    names = {name for options in MANY for name in options}
    neutral = {
        "temperature": 1.0,
        "top_p": 1.0,
        "typical_p": 1.0,
        "do_sample": True,
        "repetition_penalty": 1.0,
    }
    columns = {name: [options.get(name, neutral.get(name, 0)) for options in MANY] for name in names}
    for counter in range(20):
        got = ops.sample(logits, seeds=range(len(MANY)), counter=counter, history=history, **columns)
        for row, options in enumerate(MANY):
            part = slice(row, row + 1)
            alone = ops.sample(logits[part], seeds=[row], counter=counter, history=history[part], **options)
            assert alone.item() == got[row], options


def test_counters_of_each_row():
    logits = noise(5, 4, 801)
    got = ops.sample(logits, seeds=[3, 3, 3, 3], counter=[0, 5, 2, 9], top_p=0.9)
    for row, counter in enumerate([0, 5, 2, 9]):
        assert got[row] == ops.sample(logits[row : row + 1], seeds=[3], counter=counter, top_p=0.9).item()


@pytest.mark.parametrize("options", [{}, {"top_k": 50, "top_p": 0.95}, {"top_p": 0.9}, {"do_sample": False}])
@pytest.mark.parametrize("vocab", [70, 5003])
@pytest.mark.parametrize("level", LEVELS)
def test_penalty_then_filters(options, vocab, level):
    """Edits change which blocks matter: the largest logits are the penalised ones."""
    logits = noise(6, 3, vocab)
    history = logits.topk(30).indices
    expected = tf.RepetitionPenaltyLogitsProcessor(1.7)(history, logits)
    with cpu_level(level):
        for counter in range(10):
            more = {"seeds": [1, 2, 3], "counter": counter}
            got = ops.sample(
                logits, history=history, repetition_penalty=1.7, return_scores=True, **more, **options
            )
            same = ops.sample(expected, return_scores=True, **more, **options)
            assert torch.equal(got.tokens, same.tokens)
            assert torch.equal(got.scores, same.scores)
            assert torch.equal(
                ops.sample(logits, history=history.tolist(), repetition_penalty=1.7, **more, **options),
                same.tokens,
            )


@pytest.mark.parametrize("options", [{}, {"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.1}, {"do_sample": False}])
@pytest.mark.parametrize("vocab", [31, 64, 3001])
@pytest.mark.parametrize("level", LEVELS)
def test_allowed_tokens(options, vocab, level):
    logits = noise(7, 3, vocab)
    allowed = torch.rand(3, vocab, generator=torch.Generator().manual_seed(1)) < torch.tensor(
        [[0.5], [0.02], [1.0]]
    )
    allowed[1, vocab - 1] = True
    masked = logits.masked_fill(~allowed, -torch.inf)
    logits[~allowed] = torch.where(torch.arange((~allowed).sum()) % 2 == 0, torch.nan, torch.inf)
    with cpu_level(level):
        for counter in range(10):
            more = {"seeds": [1, 2, 3], "counter": counter, "return_scores": True}
            got = ops.sample(logits, allowed=allowed, **more, **options)
            same = ops.sample(masked, **more, **options)
            assert torch.equal(got.tokens, same.tokens)
            assert torch.equal(got.scores, same.scores)
            numpy = ops.sample(logits.numpy(), allowed=allowed.numpy(), **more, **options)
            assert np.array_equal(numpy.tokens, same.tokens.numpy())


def test_nothing_allowed():
    with pytest.raises(ValueError, match="every logit of row 1 is -inf"):
        ops.sample(torch.zeros(2, 40), seeds=[1, 2], allowed=torch.tensor([[True] * 40, [False] * 40]))


def test_an_edited_nan_is_none():
    logits = noise(1, 1, 100)
    logits[0, 3] = torch.nan
    with pytest.raises(ValueError, match=r"logits\[0, 3\] is NaN"):
        ops.sample(logits, seeds=[1])
    got = ops.sample(logits, seeds=[1], remove_invalid_values=True, return_scores=True)
    assert got.scores[0, 3] == 0


@pytest.mark.parametrize("options", [o for o in MANY if "mirostat" not in o], ids=str)
@pytest.mark.parametrize("level", LEVELS)
def test_log_probabilities(options, level):
    logits, history = noise(8, 4, 2003), tokens_so_far(4, 2003)
    logits[:, ::7] = logits[:, 3:4]
    more = {"seeds": range(4), "history": history, "return_scores": True, "top_logprobs": 9, **options}
    with cpu_level(level):
        model = ops.sample(logits, return_logprobs=True, **more)
        drawn = ops.sample(logits, return_logprobs=True, processed_logprobs=True, **more)
    assert torch.equal(model.tokens, drawn.tokens)
    for got, expected in (
        (model, logits.double().log_softmax(-1)),
        (drawn, drawn.scores.double().log_softmax(-1)),
    ):
        at = expected.gather(1, got.tokens[:, None])[:, 0]
        torch.testing.assert_close(got.logprobs, at.float(), rtol=LOGPROB, atol=0)
        for row in range(4):
            order = np.lexsort((np.arange(2003), -expected[row].numpy()))[:9]
            there = torch.isfinite(expected[row][order])
            assert got.top_tokens[row].tolist() == np.where(there, order, -1).tolist()
            torch.testing.assert_close(
                got.top_logprobs[row], expected[row][order].float(), rtol=LOGPROB, atol=0
            )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("lead", [0.0, 2.0, 8.0, 15.0, 30.0])
def test_log_probability_of_the_nearly_certain(lead, level):
    """Relative to it, where p is near 1 too."""
    logits = noise(2, 3, 5003, 1.0)
    logits[:, 77] = 9.0 + lead
    with cpu_level(level):
        got = ops.sample(logits, do_sample=False, return_logprobs=True, top_logprobs=3)
    others = logits.double()
    others[:, 77] = -torch.inf
    expected = -torch.log1p(torch.exp(others - 9.0 - lead).sum(-1))
    torch.testing.assert_close(got.logprobs.double(), expected, rtol=LOGPROB, atol=1e-12)
    torch.testing.assert_close(got.top_logprobs[:, 0], got.logprobs, rtol=0, atol=0)


def test_infinity_is_certain():
    logits = noise(1, 1, 50)
    logits[0, [20, 30]] = torch.inf
    for options in MANY:
        got = ops.sample(
            logits, seeds=[1], history=[[1, 2]], processed_logprobs=True, return_logprobs=True,
            top_logprobs=2, return_scores=True, **options,
        )  # fmt: skip
        assert got.tokens.tolist() == [20]
        assert got.logprobs.tolist() == [0.0]
        assert got.top_tokens.tolist() == [[20, -1]]
        assert (got.scores > -torch.inf).nonzero().tolist() == [[0, 20]]


def test_extremes():
    """Huge and tiny logits and temperatures: the definition, where float32 has numbers."""
    tiny = torch.tensor([[1e-40, 0.0, -1e-40, 2e-40] * 20])
    for logits in (noise(1, 1, 300, 1e30), noise(1, 1, 300, 1e-30), tiny, noise(2, 1, 5000, 1e-3) + 1000):
        for options in (
            {"top_k": 5},
            {"top_p": 0.617},
            {"min_p": 0.5},
            {"temperature": 1e-3},
            {"temperature": 1e6},
        ):
            for extra in ({}, {"top_k": 3}):
                chosen = options | extra
                x = filtered(logits[0].numpy(), chosen)
                got = ops.sample(logits, seeds=[5], return_scores=True, **chosen)
                np.testing.assert_array_equal(got.scores[0].numpy(), x.astype(np.float32))
                assert got.tokens[0] == choose(x, 5, 0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("options", [*MANY, {"top_k": 2}, {"min_p": 0.5}], ids=str)
def test_where_every_quotient_is_minus_infinity(options, level):
    """Logits and a temperature whose quotients float32 does not have: the largest is certain."""
    history = torch.zeros(1, 1, dtype=torch.int64)
    for logits, temperature in (([-3e38, -1e38, -2e38, -1e38], 0.1), ([-7.0, -5.0, -6.0, -5.0], 1e-42)):
        chosen = {"temperature": temperature} | options
        if "dynatemp_range" in chosen:  # which raises the temperature
            chosen["dynatemp_range"] = 0.0
        with cpu_level(level):
            got = ops.sample(torch.tensor([logits]), seeds=[1], history=history, **chosen)
        assert got.tolist() == [1]


@pytest.mark.parametrize(
    "options", [{"top_k": 2**62}, {"top_k": 3, "min_tokens_to_keep": 2**63 - 1}], ids=str
)
def test_more_than_the_vocabulary_is_all_of_it(options):
    logits = noise(3, 2, 9001)
    got = ops.sample(logits, seeds=[1, 2], return_scores=True, **options)
    assert torch.equal(got.scores, logits)


@pytest.mark.parametrize("options", [{}, {"top_k": 12, "top_p": 0.9}, {"top_p": 0.95}], ids=str)
def test_a_million_draws(options):
    """Chi-square: for 1 in 1e6 it exceeds n + 4.75 sqrt(2 n) + 15."""
    logits = noise(3, 1, 40, 1.0)
    p = ops.sample(logits, seeds=[1], return_scores=True, **options).scores[0].double().softmax(-1)
    rows = logits.expand(10000, 40)
    count = torch.zeros(40, dtype=torch.int64)
    for counter in range(100):
        count += ops.sample(rows, seeds=range(10000), counter=counter, **options).bincount(minlength=40)
    assert count.sum() == 10**6
    assert (count[p == 0] == 0).all()
    kept = p > 0
    expected = p[kept] * 1e6
    chi2 = ((count[kept] - expected) ** 2 / expected).sum().item()
    n = kept.sum().item() - 1
    assert chi2 < n + 4.75 * (2 * n) ** 0.5 + 15


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"top_h": 1.5}, ValueError, "top_h of row 0 is 1.5"),
        ({"typical_p": 0.0}, ValueError, "typical_p of row 0 is 0"),
        ({"eta_cutoff": -1.0}, ValueError, "eta_cutoff of row 0 is -1"),
        ({"mirostat": 3}, ValueError, "mirostat of row 0 is 3"),
        ({"temperature": 3e38, "dynatemp_range": 3e38}, ValueError, "temperature . dynatemp_range of row 0"),
        ({"min_tokens_to_keep": 0}, ValueError, "min_tokens_to_keep of row 0 is 0"),
        ({"top_p": [0.5, 2.0]}, ValueError, "top_p of row 1 is 2"),
        ({"top_p": [0.5]}, ValueError, "top_p has 1 values, expected one for each of 2 rows"),
        ({"top_k": "many"}, TypeError, "top_k is a str"),
        ({"topk": 3}, ValueError, "no rule named 'topk'"),
        ({"top_logprobs": 6}, ValueError, "top_logprobs is 6, expected 0 to 5"),
        ({"history": torch.zeros(3, 4, dtype=torch.int64)}, ValueError, r"history is int64 of shape \[3"),
        ({"history": [[1]]}, ValueError, "history of 1 rows, expected 2"),
        ({"allowed": torch.zeros(2, 4, dtype=torch.int32)}, ValueError, r"allowed is int32 of shape \[2"),
        ({"allowed": torch.zeros(2, 4, dtype=torch.bool)}, ValueError, "expected 5 columns"),
        ({"mirostat_mu": torch.zeros(3), "mirostat": 2}, ValueError, "mirostat_mu is float32"),
        ({"counter": [1, 2, 3]}, ValueError, "3 counters, expected one or one for each of 2 rows"),
    ],
)  # fmt: skip
def test_refusals(wrong, error, text):
    for _ in range(2):  # what is kept of a refused call changes nothing
        with pytest.raises(error, match=text):
            ops.sample(torch.zeros(2, 5), seeds=[1, 2], **wrong)

"""The kept set against transformers' processors, the draw against its definition, the refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from honed import _core, ops
from honed.testing import cpu_level
from honed.testing.specs.sample import choose, kept_weights

LEVELS = _core.usable_levels()


def transformers_kept(logits, temperature, top_k, top_p, min_p):
    """Scores after transformers' processors, -inf where removed."""
    scores = logits.float()
    if temperature != 1:
        scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    if min_p:
        scores = MinPLogitsWarper(min_p)(None, scores)
    return scores


options = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 0.7, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 1, 2, 5, 50, 400]),
        "top_p": st.sampled_from([1.0, 0.95, 0.9, 0.5, 0.07]),
        "min_p": st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    }
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(options, st.sampled_from([1, 2, 31, 33, 257, 1000]), st.integers(0, 1000), st.sampled_from([0.3, 3.0]))
def test_keeps_what_transformers_keeps(chosen, vocab, seed, spread):
    """Distinct logits: the definition keeps what transformers keeps, the kernel follows the definition."""
    logits = torch.randn(3, vocab, generator=torch.Generator().manual_seed(seed)) * spread
    weights = kept_weights(logits, **chosen)
    scores = transformers_kept(logits, **chosen)
    assert torch.equal(weights > 0, scores > -torch.inf)
    torch.testing.assert_close(weights / weights.sum(-1, keepdim=True), scores.double().softmax(-1))
    for counter in range(40):
        got = ops.sample(logits, seeds=range(3), counter=counter, **chosen)
        assert torch.equal(got, choose(weights, range(3), counter))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_ties(level, dtype):
    """All that tie at top-k stay; at top-p the lower indices of equal weight go first."""
    generator = torch.Generator().manual_seed(5)
    for vocab in (40, 1000):
        logits = torch.randint(0, 6, (4, vocab), generator=generator).to(dtype)
        for chosen in [{"top_k": 7}, {"top_p": 0.61}, {"top_k": 30, "top_p": 0.77}, {"top_k": vocab - 3}]:
            weights = kept_weights(logits, **chosen)
            full = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | chosen
            scores = transformers_kept(logits, **full)
            if "top_p" not in chosen:  # torch.sort, which transformers uses for top-p, leaves ties undefined
                assert torch.equal(weights > 0, scores > -torch.inf)
            assert torch.equal((weights > 0).sum(-1), (scores > -torch.inf).sum(-1))
            with cpu_level(level):
                for counter in range(60):
                    got = ops.sample(logits, seeds=range(4), counter=counter, **chosen)
                    assert torch.equal(got, choose(weights, range(4), counter))


def test_equal_logits_far_from_one():
    """All the same, and one far below: the histogram has one bin that counts."""
    logits = torch.full((1, 500), 3.25)
    logits[0, 17] = -1e30
    for chosen in [{"top_p": 0.5}, {"top_k": 5}, {"top_p": 0.9, "min_p": 0.5}, {"top_k": 490, "top_p": 0.3}]:
        weights = kept_weights(logits, **chosen)
        for counter in range(100):
            got = ops.sample(logits, seeds=[1], counter=counter, **chosen)
            assert torch.equal(got, choose(weights, [1], counter))


def test_masked_tokens_are_never_drawn():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 300, generator=generator)
    logits[:, ::3] = -torch.inf
    logits[:, 1::3] = torch.finfo(torch.float32).min
    for chosen in [{}, {"top_k": 200}, {"top_p": 0.999}, {"top_k": 299, "top_p": 0.99}]:
        draws = torch.stack([ops.sample(logits, seeds=[1, 2], counter=c, **chosen) for c in range(300)])
        assert (draws % 3 == 2).all()


def test_frequencies():
    """Chi-square of 1e5 draws: 9 degrees of freedom, the 1e-6 quantile is 46.9."""
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(3)).expand(1000, 10)
    draws = torch.cat([ops.sample(logits, seeds=range(1000), counter=c) for c in range(100)])
    expected = logits[0].double().softmax(-1) * len(draws)
    chi2 = ((draws.bincount(minlength=10) - expected) ** 2 / expected).sum().item()
    assert chi2 < 46.9


@pytest.mark.parametrize(
    "chosen", [{}, {"top_k": 20}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_k": 2000, "top_p": 0.9}]
)
def test_same_token_on_every_level(chosen):
    logits = torch.randn(4, 5003, generator=torch.Generator().manual_seed(4))
    for counter in range(100):
        tokens = []
        for level in LEVELS:
            with cpu_level(level):
                tokens.append(ops.sample(logits, seeds=range(4), counter=counter, **chosen))
        assert all(torch.equal(tokens[0], other) for other in tokens[1:])


def test_a_row_does_not_know_its_batch():
    logits = torch.randn(9, 700, generator=torch.Generator().manual_seed(4))
    together = ops.sample(logits, top_k=40, top_p=0.9, seeds=range(9), counter=2)
    for row in range(9):
        alone = ops.sample(logits[row : row + 1], top_k=40, top_p=0.9, seeds=[row], counter=2)
        assert alone.item() == together[row]


def test_greedy_takes_the_first_largest():
    logits = torch.zeros(2, 5000)
    logits[0, [1500, 1501, 4000]] = 2.0
    for got in (ops.sample(logits, do_sample=False), ops.sample(logits, temperature=0.0)):
        assert got.tolist() == [1500, 0]
        assert got.dtype == torch.int64
    logits[1, 4999] = 1
    assert ops.sample(logits, do_sample=False).tolist() == [1500, 4999]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("do_sample", [True, False])
def test_rows_without_an_answer(level, do_sample):
    logits = torch.zeros(3, 77)
    with cpu_level(level):
        logits[1, 76] = torch.nan
        with pytest.raises(ValueError, match=r"sample: logits\[1, 76\] is NaN"):
            ops.sample(logits, do_sample=do_sample, seeds=range(3))
        logits[1] = -torch.inf
        with pytest.raises(ValueError, match="every logit of row 1 is -inf"):
            ops.sample(logits, do_sample=do_sample, seeds=range(3))
        logits[1, 5:7] = torch.inf
        assert ops.sample(logits, do_sample=do_sample, seeds=range(3))[1] == 5


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"temperature": -1.0}, "temperature of row 0 is -1"),
        ({"temperature": float("nan")}, "temperature of row 0 is nan"),
        ({"top_k": -1}, "top_k of row 0 is -1"),
        ({"top_p": 0.0}, "top_p of row 0 is 0"),
        ({"top_p": 1.01}, "top_p of row 0 is 1.01"),
        ({"top_p": float("nan")}, "top_p of row 0 is nan"),
        ({"min_p": -0.1}, "min_p of row 0 is -0.1"),
        ({"min_p": float("nan")}, "min_p of row 0 is nan"),
        ({"seeds": [1]}, "1 seeds, expected one for each of 2 rows"),
    ],
)
def test_refusals(wrong, text):
    with pytest.raises(ValueError, match=text):
        ops.sample(torch.zeros(2, 5), **wrong)


def test_refused_shapes_and_types():
    with pytest.raises(ValueError, match=r"expected \(B,V\)"):
        ops.sample(torch.zeros(5), do_sample=False)
    with pytest.raises(ValueError, match="V > 0"):
        ops.sample(torch.zeros(2, 0), do_sample=False)
    with pytest.raises(TypeError, match="logits are float64"):
        ops.sample(np.zeros((1, 4)), do_sample=False)


def test_seeds_come_from_torchs_generator():
    logits = torch.zeros(4, 1000)
    torch.manual_seed(0)
    first, second = ops.sample(logits), ops.sample(logits)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(ops.sample(logits), first)
    from_numpy = ops.sample(logits.numpy(), seeds=range(4))
    assert ops.sample(logits, seeds=torch.arange(4)).tolist() == from_numpy.tolist()

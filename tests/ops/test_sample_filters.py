"""Every filter, alone and combined, against transformers in float64 and against the definition."""

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.sample_reference import OFF, choose, filtered

from honed import _core, ops
from honed.testing import cpu_level

LEVELS = _core.usable_levels()
EPS = torch.finfo(torch.float32).eps

VALUES = {
    "temperature": [0.3, 0.7, 1.0, 1.7],
    "top_h": [0.1, 0.4, 0.9],  # 1: its sums' rounding decides in transformers
    "top_k": [1, 2, 5, 50, 400],
    "top_p": [0.95, 0.9, 0.5, 0.07],
    "min_p": [0.02, 0.3, 1.0],
    "typical_p": [0.2, 0.9, 0.95],
    "epsilon_cutoff": [3e-4, 3e-3, 0.1],
    "eta_cutoff": [3e-4, 2e-3, 0.1],
}
OURS = {
    "top_h": [1.0, 0.5],
    "dynatemp_range": [0.2, 0.7],
    "dynatemp_exponent": [1.0, 2.0],
    "top_n_sigma": [0.5, 1.0, 3.0],
    "xtc_probability": [0.5, 1.0],
    "xtc_threshold": [0.02, 0.1],
}


def chosen_from(values):
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(each) for name, each in values.items()})


def transformers_scores(logits, o, dtype):
    """transformers' processors in the order of generate(), in float32, or in float64 from x on."""
    floor = o["min_tokens_to_keep"]
    scores = tf.TemperatureLogitsWarper(float(o["temperature"]))(None, logits.float()).to(dtype)
    steps = []
    if o["top_h"]:
        steps.append(tf.TopHLogitsWarper(o["top_h"]))
    if o["top_k"]:
        steps.append(tf.TopKLogitsWarper(o["top_k"], min_tokens_to_keep=floor))
    if o["top_p"] < 1:
        steps.append(tf.TopPLogitsWarper(o["top_p"], min_tokens_to_keep=floor))
    if o["min_p"]:
        steps.append(tf.MinPLogitsWarper(o["min_p"], min_tokens_to_keep=floor))
    if o["typical_p"] < 1:
        steps.append(tf.TypicalLogitsWarper(o["typical_p"], min_tokens_to_keep=floor))
    if o["epsilon_cutoff"]:
        steps.append(tf.EpsilonLogitsWarper(o["epsilon_cutoff"], min_tokens_to_keep=floor))
    if o["eta_cutoff"]:
        steps.append(tf.EtaLogitsWarper(o["eta_cutoff"], min_tokens_to_keep=floor))
        steps[-1].epsilon = torch.tensor(o["eta_cutoff"], dtype=dtype)
    for step in steps:
        scores = step(None, scores)
    return scores


def noise(seed, rows, vocab, spread=2.0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def check_transformers(logits, options):
    """The same tokens and probabilities as transformers' in float64; whether its float32 has them too."""
    o = OFF | options
    got = ops.sample(logits, seeds=range(len(logits)), return_scores=True, **options)
    expected = transformers_scores(logits, o, torch.float64)
    assert torch.equal(got.scores > -torch.inf, expected > -torch.inf)
    p = expected.softmax(-1)
    torch.testing.assert_close(got.scores.double().softmax(-1), p, rtol=1e-6, atol=0)
    for row, token in enumerate(got.tokens.tolist()):
        u = _core.random_uniform(row, 0)
        sums = p[row].cumsum(-1)
        assert token == int((sums <= u * sums[-1]).sum())
    return torch.equal(transformers_scores(logits, o, torch.float32) > -torch.inf, expected > -torch.inf)


@pytest.mark.parametrize(
    "options", [{name: value} for name, values in VALUES.items() for value in values], ids=str
)
@pytest.mark.parametrize("floor", [1, 4])
def test_one_filter_keeps_what_transformers_keeps(options, floor):
    """In float32 transformers itself judges a token at a bound otherwise, seldom."""
    same = [
        check_transformers(noise(seed, 3, vocab, spread), options | {"min_tokens_to_keep": floor})
        for seed, (vocab, spread) in enumerate([(1, 1.0), (5, 3.0), (33, 0.3), (1003, 2.0), (5003, 4.0)])
    ]
    assert sum(same) >= len(same) - 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    chosen_from(VALUES),
    st.sampled_from([1, 2, 31, 33, 257, 1000, 3001]),
    st.integers(0, 1000),
    st.sampled_from([0.3, 3.0]),
    st.sampled_from([1, 3]),
)
def test_combinations_keep_what_transformers_keeps(options, vocab, seed, spread, floor):
    check_transformers(noise(seed, 3, vocab, spread), options | {"min_tokens_to_keep": floor})


def check_definition(logits, options, seeds, counter, mu=None):
    given_mu = None if mu is None else np.array(mu, dtype=np.float64)
    got = ops.sample(
        logits, seeds=seeds, counter=counter, return_scores=True, mirostat_mu=given_mu, **options
    )
    floats = logits.float().numpy()
    for row, seed in enumerate(seeds):
        x = filtered(floats[row], options, seed, counter, None if mu is None else mu[row])
        np.testing.assert_array_equal(got.scores[row].numpy(), x.astype(np.float32))
        assert got.tokens[row] == choose(x, seed, counter)
        if mu is not None:
            p = np.exp(x - x.max())
            surprise = -np.log2(p[got.tokens[row]] / p.sum())
            o = OFF | options
            expected = mu[row] - o["mirostat_eta"] * (surprise - o["mirostat_tau"])
            np.testing.assert_allclose(given_mu[row], expected, rtol=1e-12)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    chosen_from(VALUES | OURS),
    st.sampled_from([1, 2, 31, 33, 257, 1000, 3001]),
    st.integers(0, 1000),
    st.sampled_from([0.3, 3.0]),
    st.sampled_from([1, 3]),
    st.sampled_from(["distinct", "tied", "masked"]),
    st.sampled_from(LEVELS),
)
def test_the_definition(options, vocab, seed, spread, floor, kind, level):
    logits = noise(seed, 3, vocab, spread)
    if kind == "tied":
        logits = logits.round()
    if kind == "masked":
        logits[:, 1::2] = -torch.inf
    with cpu_level(level):
        check_definition(logits, options | {"min_tokens_to_keep": floor}, range(seed, seed + 3), seed)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(VALUES | OURS))
def test_halves(name, dtype, level):
    values = (VALUES | OURS)[name]
    extra = {"dynatemp_range": 0.4} if name == "dynatemp_exponent" else {}
    extra |= {"xtc_probability": 1.0} if name == "xtc_threshold" else {}
    with cpu_level(level):
        check_definition(noise(3, 2, 2051).to(dtype), {name: values[0], **extra}, [4, 5], 2)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mirostat", [1, 2])
@pytest.mark.parametrize("vocab", [1, 2, 40, 1500])
def test_mirostat(mirostat, vocab, level):
    with cpu_level(level):
        for seed, (tau, mu) in enumerate([(5.0, 10.0), (3.0, 2.0), (1.0, 0.1), (8.0, 30.0)]):
            options = {"mirostat": mirostat, "mirostat_tau": tau, "mirostat_eta": 0.3, "temperature": 0.9}
            logits = noise(seed, 2, vocab, 3.0)
            check_definition(logits, options, [seed, seed + 9], 5, [mu, mu / 2])


@pytest.mark.parametrize("mirostat", [1, 2])
def test_mirostat_reaches_its_surprise(mirostat):
    """Over many draws the mean surprise of the kept distribution comes near tau."""
    logits = noise(0, 1, 5000, 2.0)
    sampler = _core.Sampler({"mirostat": mirostat, "mirostat_tau": 4.0})
    surprise = []
    for counter in range(600):
        mine = sampler(logits, None, [1], [counter], logprobs=True, of_drawn=True)
        surprise.append(-mine[1].item() / np.log(2))
    assert abs(np.mean(surprise[100:]) - 4.0) < 0.15
    free = [
        ops.sample(logits, seeds=[1], counter=c, return_logprobs=True).logprobs.item() for c in range(500)
    ]
    assert abs(np.mean(free) / -np.log(2) - 4.0) > 1.0


def test_xtc_has_numbers_of_its_own():
    """How often it strikes, and that this tells nothing about the draw."""
    logits = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]])).expand(1000, 4)
    struck = drawn = both = 0
    for counter in range(20):
        got = ops.sample(
            logits,
            seeds=range(1000),
            counter=counter,
            xtc_probability=0.25,
            xtc_threshold=0.25,
            return_scores=True,
        )
        hit = got.scores[:, 0] == -torch.inf
        high = torch.tensor([_core.random_uniform(seed, counter) > 0.5 for seed in range(1000)])
        struck += hit.sum().item()
        drawn += high.sum().item()
        both += (hit & high).sum().item()
        assert (got.scores[:, 1] > -torch.inf).all()
    n = 20000
    assert abs(struck / n - 0.25) < 5 * (0.25 * 0.75 / n) ** 0.5
    assert abs(both / n - struck / n * drawn / n) < 5 * (0.125 * 0.875 / n) ** 0.5

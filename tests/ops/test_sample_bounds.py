"""Where float32 sums cannot tell the token: the kernel must answer as its float64 definition does."""

import math

import numpy as np
import pytest
import torch
from tests.ops.sample_reference import choose, entropy, filtered

from honed import _core, ops
from honed.testing import cpu_level

LEVELS = _core.usable_levels()


def row_of(p, vocab, nudge):
    """Logits in which the tokens 40, 41 ... have probabilities p, but for float32 and `nudge` units of it."""
    logits = np.full(vocab, -np.inf, np.float32)
    logits[40 : 40 + len(p)] = np.log(np.asarray(p)) + 2.0
    units = np.abs(np.spacing(logits[40]))
    logits[40] += np.float32(nudge) * units
    return logits


def check(logits, options, seed, mu=None):
    given = None if mu is None else np.array([mu])
    more = {"seeds": [seed], "mirostat_mu": given, **options}
    x = filtered(logits, options, seed, 0, mu)
    got = ops.sample(torch.from_numpy(logits)[None], **more)
    assert got.item() == choose(x, seed, 0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("nudge", [-2, -1, 0, 1, 2])
def test_the_draw_at_the_edge_of_a_token(level, nudge):
    """u * total within float32 rounding of where the second token begins."""
    with cpu_level(level):
        for seed in range(60):
            u = _core.random_uniform(seed, 0)
            check(row_of([u, 1 - u], 3001, nudge), {}, seed)
            check(row_of([u / 2, u / 2, (1 - u) / 4, (1 - u) / 4, (1 - u) / 2], 70, nudge), {}, seed)


def eta_edge(eta):
    """The p of one of two tokens that is sqrt(eta) e^-H."""
    low, high = 1e-9, 0.3
    for _ in range(200):
        p = (low + high) / 2
        less = p < math.sqrt(eta) * math.exp(-entropy(np.array([p, 1 - p])))
        low, high = (p, high) if less else (low, p)
    return p


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("nudge", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("kind", ["epsilon_cutoff", "eta_cutoff", "scaled eta", "mirostat", "top_p"])
def test_a_cut_at_the_weight_of_a_token(kind, nudge, level):
    """The token is kept or not: what the scores say, and what the draw of few u does."""
    mu = None
    with cpu_level(level):
        for share in (0.011, 0.0237, 0.05, 0.0731, 0.1):
            p, options = share, {kind: share}
            if kind == "scaled eta":
                share *= 4
                p, options = eta_edge(share), {"eta_cutoff": share}
            elif kind == "top_p":
                options = {"top_p": 1 - share}
            elif kind == "mirostat":
                mu, options = -math.log2(share), {"mirostat": 2}
            logits = row_of([p, 1 - p], 3001, nudge)
            x = filtered(logits, options, 0, 0, mu)
            given = None if mu is None else np.array([mu])
            got = ops.sample(
                torch.from_numpy(logits)[None], seeds=[0], return_scores=True, mirostat_mu=given, **options
            )
            np.testing.assert_array_equal(got.scores[0].numpy(), x.astype(np.float32))

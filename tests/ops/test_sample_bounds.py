"""Where float32 sums cannot tell the token: the kernel must answer as its float64 definition does."""

import math

import numpy as np
import pytest
import torch
from tests.ops.sample_reference import choose, filtered

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


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("nudge", [-2, -1, 0, 1, 2])
def test_the_draw_at_the_edge_of_a_token(level, nudge):
    """u * total within float32 rounding of where the second token begins."""
    with cpu_level(level):
        for seed in range(60):
            u = _core.random_uniform(seed, 0)
            v = 1 - u
            for logits in (
                row_of([u, v], 3001, nudge),
                row_of([u / 2, u / 2, v / 4, v / 4, v / 2], 70, nudge),
            ):
                got = ops.sample(torch.from_numpy(logits)[None], seeds=[seed])
                assert got.item() == choose(logits.astype(np.float64), seed, 0)


def edge(logits, options, mu):
    """The least logit with which token 40 is kept."""
    low, high = np.float32(-8.0), np.float32(3.0)  # dropped; kept
    while (middle := np.float32((low + high) / 2)) not in (low, high):
        logits[40] = middle
        if filtered(logits, options, 0, 0, mu)[40] > -np.inf:
            high = middle
        else:
            low = middle
    return high


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "options",
    [{"epsilon_cutoff": 1.0}, {"eta_cutoff": 1.0}, {"eta_cutoff": 4.0}, {"mirostat": 2}, {"top_p": 1.0}],
    ids=str,
)
def test_a_cut_at_the_weight_of_a_token(options, level):
    """A float32 to either side of where the token leaves; its logit is near 0, where these are dense."""
    name, factor = next(iter(options.items()))
    with cpu_level(level):
        for share in np.geomspace(0.011, 0.09, 8):
            mu = None
            options = {name: factor * share}
            if name == "top_p":
                options = {name: 1 - share}
            elif name == "mirostat":
                mu, options = -math.log2(share), {name: 2}
            logits = row_of([0.01, 0.3, 0.24, 0.21, 0.15, 0.1] + [1e-5] * 9, 1001, 0)
            logits -= np.float32(2.0 + math.log(share))
            at = logits[40] = edge(logits, options, mu)
            for step in (-np.inf, np.inf):
                for _ in range(3):
                    x = filtered(logits, options, 0, 0, mu)
                    got = ops.sample(
                        torch.from_numpy(logits)[None],
                        seeds=[0],
                        return_scores=True,
                        mirostat_mu=None if mu is None else np.array([mu]),
                        **options,
                    )
                    np.testing.assert_array_equal(got.scores[0].numpy(), x.astype(np.float32))
                    logits[40] = np.nextafter(logits[40], np.float32(step))
                logits[40] = at

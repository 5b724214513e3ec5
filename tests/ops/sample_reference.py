"""The definition of honed.ops.sample by sorting, in float64 NumPy: one row."""

import math

import numpy as np

from honed import _core

XTC_STREAM = 0x9FB21C651E98DF25
OFF = {
    "temperature": 1.0,
    "dynatemp_range": 0.0,
    "dynatemp_exponent": 1.0,
    "top_n_sigma": 0.0,
    "top_h": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
    "min_tokens_to_keep": 1,
    "mirostat": 0,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
}


def weighed(x):
    """Weights and their total. Shares are parts of it: equal weights lose nothing to rounding."""
    weights = np.exp(x - x.max())
    return weights, weights.sum()


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def entropy(p):
    p = p[p > 0]
    return -(p * np.log(p)).sum()


def ascending(x):
    """Order of x; of equal ones the lower index is the smaller."""
    return np.argsort(x, kind="stable")


def temper(y, o):
    """x in float32, and the temperature."""
    t = np.float32(o["temperature"])
    if o["dynatemp_range"] > 0:
        p = softmax(y.astype(np.float64))
        n = (y > -np.inf).sum()
        span = float(np.float32(o["dynatemp_range"]))
        low, high = max(float(t) - span, 0.0), float(t) + span
        if n > 1:
            part = max(entropy(p) / math.log(n), 0.0)
            t = np.float32(low + (high - low) * part ** float(np.float32(o["dynatemp_exponent"])))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (y.astype(np.float32) / t).astype(np.float64)


def mirostat_kept(x, o, mu, vocab):
    p, order = softmax(x), ascending(x)[::-1]
    if o["mirostat"] == 2:
        keep = p >= 2.0**-mu
        keep[order[0]] = True
        return keep
    top = x[order[:100]]
    top = top[top > -np.inf]
    rank = np.log(np.arange(2, len(top) + 1) / np.arange(1, len(top)))
    with np.errstate(all="ignore"):
        s = (rank * (top[:-1] - top[1:])).sum() / (rank**2).sum()
        k = ((s - 1) * 2.0**mu / (1 - np.float64(vocab) ** (1 - s))) ** (1 / s)
    k = len(x) if k >= len(x) else int(k) if k >= 1 else 1
    keep = np.zeros(len(x), bool)
    keep[order[:k]] = True
    return keep


def filtered(y, options, seed=0, counter=0, mu=None):
    """x of one row, -inf where it is dropped."""
    o = OFF | options
    x = temper(np.asarray(y), o)
    floor = o["min_tokens_to_keep"]

    def keep(mask):
        return np.where(mask, x, -np.inf)

    def largest(count):
        mask = np.zeros(len(x), bool)
        mask[ascending(x)[::-1][:count]] = True
        return mask

    def reaches(count):
        return x >= np.sort(x)[::-1][min(count, len(x)) - 1]

    if o["mirostat"]:
        return keep(mirostat_kept(x, o, 2 * o["mirostat_tau"] if mu is None else mu, len(x)))
    if o["top_n_sigma"]:
        x = keep(x >= x.max() - o["top_n_sigma"] * x[x > -np.inf].std())
    if o["top_h"]:
        order = ascending(x)[::-1][:100]
        p = softmax(x[order])
        terms = np.where(p > 0, -p * np.log(np.where(p > 0, p, 1)), 0)
        sums = np.cumsum(terms)
        chosen = sums <= o["top_h"] * sums[-1]
        chosen[0] = True
        mask = np.zeros(len(x), bool)
        mask[order[chosen & (x[order] > -np.inf)]] = True
        x = keep(mask)
    if o["top_k"]:
        x = keep(reaches(max(o["top_k"], floor)))
    if o["top_p"] < 1:
        order = ascending(x)
        weights, total = weighed(x)
        gone = np.cumsum(weights[order]) <= (1 - o["top_p"]) * total
        mask = np.ones(len(x), bool)
        mask[order[gone]] = False
        x = keep(mask | largest(floor))
    if o["min_p"]:
        weights, _ = weighed(x)
        x = keep((weights >= o["min_p"]) | largest(floor))
    if o["typical_p"] < 1:
        p = softmax(x)
        with np.errstate(divide="ignore"):
            deviation = np.abs(-np.log(p) - entropy(p))
        order = ascending(deviation)
        weights, total = weighed(x)
        last = min(int((np.cumsum(weights[order]) < o["typical_p"] * total).sum()), len(x) - 1)
        mask = deviation <= deviation[order[last]]
        mask[order[:floor]] = True
        x = keep(mask)
    if o["epsilon_cutoff"]:
        weights, total = weighed(x)
        x = keep((weights >= o["epsilon_cutoff"] * total) | reaches(floor))
    if o["eta_cutoff"]:
        weights, total = weighed(x)
        bound = min(o["eta_cutoff"], math.sqrt(o["eta_cutoff"]) * math.exp(-entropy(weights / total)))
        x = keep((weights >= bound * total) | reaches(floor))
    if o["xtc_probability"] and _core.random_uniform(seed ^ XTC_STREAM, counter) < o["xtc_probability"]:
        weights, total = weighed(x)
        above = [i for i in ascending(x) if weights[i] >= o["xtc_threshold"] * total]
        if len(above) > 1 and (x > -np.inf).sum() - (len(above) - 1) >= floor:
            mask = np.ones(len(x), bool)
            mask[above[1:]] = False
            x = keep(mask)
    return x


def choose(x, seed, counter):
    """Inverse cumulative distribution in vocabulary order."""
    sums = np.exp(x - x.max()).cumsum()
    return int((sums <= _core.random_uniform(seed, counter) * sums[-1]).sum())

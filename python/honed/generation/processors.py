"""honed's own options as transformers' LogitsProcessors: what a decoding loop other than the engine's runs.

The engine's loop reads their numbers and does the same in C++ (``csrc/ops/_token_rules.h``, ``sample.h``).
"""

from __future__ import annotations

import math
import numbers

import torch
from transformers import LogitsProcessor

from honed._lib import _core


def _number(name: str, value, most: float = math.inf) -> float:
    """An option of ours as the engine takes it: finite, from 0 to ``most``."""
    if not isinstance(value, numbers.Real | torch.Tensor):
        raise TypeError(f"{name} is {value!r}, expected a number")
    if not (0 <= value <= most and math.isfinite(value)):
        bound = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{name} is {value}, expected a finite number of at least 0{bound}")
    return float(value)


class _Rule(LogitsProcessor):
    """A rule of the tokens so far, done by the engine's code."""

    def __init__(self, options: dict, padding: torch.Tensor | None = None):
        self.options = options
        self.padding = padding
        self._native = None
        self._rows = 0

    def rules(self, row: int, rows: int) -> dict:
        """The options of one row of ``rows``; several rows may go on from one prompt."""
        if self.padding is None:
            return self.options
        prompt = row * len(self.padding) // rows
        return {**self.options, "prompt_ignore_length": int(self.padding[prompt])}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = len(scores)
        if self._rows != rows:
            self._native = _core.TokenRules([self.rules(row, rows) for row in range(rows)])
            self._rows = rows
        return self._native(scores, input_ids.to(torch.int64).contiguous())


class LogitBias(_Rule):
    """x + bias of the token."""


class FrequencyPenalty(_Rule):
    """x - presence - frequency * n, of tokens that stand n > 0 times among the last ``penalty_window``."""


class Dry(_Rule):
    """x - multiplier * base^(n - allowed_length) for a token that lengthens a repetition of n tokens."""


class Allowed(LogitsProcessor):
    """-inf for what a grammar (``honed.generation.grammar``) does not allow. For one ``generate``.

    ``source``: its ``session()`` has ``mask(input_ids, vocab)``, as here.
    """

    def __init__(self, source):
        if not hasattr(source, "session"):
            raise TypeError(f"grammar is {source!r}, expected one of honed.generation.grammar")
        self._session = source.session()
        self._native = None

    def mask(self, input_ids: torch.Tensor, vocab: int) -> torch.Tensor:
        """int32 words (B, ceil(vocab / 32)), token t in bit t % 32."""
        return self._session.mask(input_ids, vocab)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._native is None or self._native[0] != len(scores):
            self._native = len(scores), _core.TokenRules([{"constrained": True}] * len(scores))
        ids = input_ids.to(torch.int64).contiguous()
        return self._native[1](scores, ids, self.mask(ids, scores.shape[-1]))


class DynamicTemperature(LogitsProcessor):
    """x / T, T from temperature - range to temperature + range as the entropy of softmax(x) goes up."""

    def __init__(self, temperature: float, dynatemp_range: float, dynatemp_exponent: float):
        self.temperature = _number("temperature", temperature)
        self.dynatemp_range = _number("dynatemp_range", dynatemp_range)
        self.dynatemp_exponent = _number("dynatemp_exponent", dynatemp_exponent)

    def __call__(self, input_ids, scores):
        logp = scores.double().log_softmax(-1)
        entropy = -torch.special.xlogy(logp.exp(), logp.exp()).sum(-1, keepdim=True)
        most = (scores > -math.inf).sum(-1, keepdim=True).double().log()
        share = torch.where(most > 0, entropy / most, 0.0).clamp(0, 1) ** self.dynatemp_exponent
        least = max(0.0, self.temperature - self.dynatemp_range)
        temperature = least + (self.temperature + self.dynatemp_range - least) * share
        return (scores / temperature.clamp(min=1e-10)).to(scores.dtype)


class TopNSigma(LogitsProcessor):
    """Keeps x >= max x - n * (standard deviation of x above -inf)."""

    def __init__(self, top_n_sigma: float):
        self.top_n_sigma = _number("top_n_sigma", top_n_sigma)

    def __call__(self, input_ids, scores):
        x, there = scores.double(), scores > -math.inf
        count = there.sum(-1, keepdim=True)
        mean = torch.where(there, x, 0.0).sum(-1, keepdim=True) / count
        sigma = (torch.where(there, x - mean, 0.0).square().sum(-1, keepdim=True) / count).sqrt()
        return scores.masked_fill(x < x.amax(-1, keepdim=True) - self.top_n_sigma * sigma, -math.inf)


class Xtc(LogitsProcessor):
    """With a probability: of the tokens with p >= threshold all but the smallest are dropped."""

    def __init__(self, xtc_probability: float, xtc_threshold: float):
        self.xtc_probability = _number("xtc_probability", xtc_probability, 1)
        self.xtc_threshold = _number("xtc_threshold", xtc_threshold, 1)

    def __call__(self, input_ids, scores):
        above = scores.softmax(-1) >= self.xtc_threshold
        # Of equal ones that with the lower index counts as the smaller.
        least = torch.where(above, scores, math.inf).argmin(-1, keepdim=True)
        above.scatter_(-1, least, False)
        drawn = torch.rand(len(scores), 1) < self.xtc_probability
        return scores.masked_fill(above & drawn, -math.inf)


class Mirostat(LogitsProcessor):
    """Keeps what is less surprising than mu, and moves mu by how surprising the drawn token was."""

    def __init__(self, mirostat: int, mirostat_tau: float, mirostat_eta: float):
        if mirostat not in (1, 2):
            raise ValueError(f"mirostat is {mirostat}, expected 0 (off), 1 or 2")
        self.mirostat = int(mirostat)
        self.mirostat_tau = _number("mirostat_tau", mirostat_tau)
        self.mirostat_eta = _number("mirostat_eta", mirostat_eta)
        self._mu = self._kept = None

    def __call__(self, input_ids, scores):
        if self._kept is None or len(self._kept) != len(scores):
            self._mu = torch.full((len(scores), 1), 2 * self.mirostat_tau, dtype=torch.float64)
        else:
            surprise = -self._kept.gather(1, input_ids[:, -1:]) / math.log(2)
            surprise = surprise.nan_to_num(posinf=self.mirostat_tau)  # padding of a finished row
            self._mu -= self.mirostat_eta * (surprise - self.mirostat_tau)
        logp = scores.double().log_softmax(-1)
        if self.mirostat == 2:
            dropped = -logp / math.log(2) > self._mu
        else:
            least = [row.topk(k).values[-1] for row, k in zip(logp, self._zipf(logp), strict=True)]
            dropped = logp < torch.stack(least)[:, None]
        dropped.scatter_(-1, logp.argmax(-1, keepdim=True), False)
        kept = scores.masked_fill(dropped, -math.inf)
        self._kept = kept.double().log_softmax(-1)
        return kept

    def _zipf(self, logp):
        vocab = logp.shape[-1]
        top = logp.topk(min(100, vocab), -1).values
        i = torch.arange(1, top.shape[1], dtype=torch.float64)
        steps, falls = ((i + 1) / i).log(), top[:, :-1] - top[:, 1:]
        s = (steps * falls).sum(-1) / steps.square().sum()
        e = s - 1
        k = ((e * 2.0 ** self._mu[:, 0]) / (1 - vocab ** (-e))) ** (1 / s)
        return k.nan_to_num(nan=1.0).clamp(1, vocab).int().tolist()

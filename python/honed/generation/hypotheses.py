"""The texts of a search that ended, as the beam scorers of transformers 4 kept them.

Unlike the search of transformers 5, a text that ends takes no place among the beams, whatever its rank within
the candidates so far; and what goes on at the greatest length counts as ended.
"""

from __future__ import annotations

from honed.generation.beams import Hypothesis


class Hypotheses:
    """The ``count`` best texts that ended; texts that fulfil their constraints come before any other."""

    def __init__(self, count: int, config, furthest: int):
        self._count, self._penalty, self._early = count, config.length_penalty, config.early_stopping
        self._furthest = furthest
        self.found: list[Hypothesis] = []
        self.done = False

    def add(self, tokens, parents, score: float, fulfils: bool = True) -> None:
        made = Hypothesis(tokens, parents, score / max(1, len(parents)) ** self._penalty, fulfils)
        self.found = sorted([*self.found, made], key=rank, reverse=True)[: self._count]

    def look_ahead(self, running: float, length: int) -> None:
        """Whether the best text that goes on, now of that score and length, can still be among the best."""
        if len(self.found) < self._count:
            return
        if self._early == "never" and self._penalty > 0:
            length = self._furthest
        early = self._early is True
        self.done = self.done or early or self.found[-1].score >= running / length**self._penalty


def rank(hypothesis: Hypothesis):
    return hypothesis.fulfils, hypothesis.score


def sort(scores, rows, tokens, eos, beams: int):
    """Of a prompt's candidates, best first: those that go on, and those among the best ``beams`` that end.

    Both are lists of (score, row, token).
    """
    going, ending = [], []
    for place, candidate in enumerate(zip(scores, rows, tokens, strict=True)):
        if candidate[2] not in eos:
            going.append(candidate)
            if len(going) == beams:
                break
        elif place < beams:
            ending.append(candidate)
    return going, ending

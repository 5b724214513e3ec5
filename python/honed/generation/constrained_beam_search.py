"""Constrained beam search: texts that contain given phrases (Hokamp and Liu, arXiv:1704.07138).

Candidates are the best continuations of the beams, every beam with each token that brings its constraints
forward, and every beam with its best token. They are in banks by how far they are
with the constraints, and the beams are filled with the best of each bank in turn (Post and Vilar,
arXiv:1804.06609: dynamic beam allocation). A text may end only when all constraints are fulfilled.

transformers 4 left out each beam's best token, so that it could lose the texts that had fulfilled everything.
Only new tokens count, not those of the prompt. Where the greatest length comes too soon, texts that do not
fulfil the constraints come after all that do.
"""

from __future__ import annotations

import math

import torch

from honed.generation.beams import Beams, best_of, largest
from honed.generation.constraints import Progress, constraints_of
from honed.generation.hypotheses import Hypotheses, sort


@torch.no_grad()
def constrained_beam_search(
    model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs
):
    """A decoding method for ``generate``: takes and returns what transformers' own do.

    Raises:
        ValueError: without constraints, for ill-formed ones, with one beam, with groups or ``do_sample``.

    Example:
        >>> words = tokenizer([" sea", " keeper"], add_special_tokens=False).input_ids
        >>> model.generate(**inputs, num_beams=5, force_words_ids=words,
        ...                custom_generate=constrained_beam_search)
    """
    config = generation_config
    constraints = _constraints(config, model.config.get_text_config(decoder=True).vocab_size)
    beams = Beams(model, input_ids, logits_processor, stopping_criteria, config, model_kwargs)
    furthest = beams.max_length - beams.prompt_length
    searches = [_Search(beams, i, constraints, furthest) for i in range(beams.prompts)]
    running = torch.full((beams.prompts, beams.count), -1.0e9)
    running[:, 0] = 0
    while True:
        scores, added = beams.log_probabilities(), running.flatten()
        beams.keep(scores)
        count = beams.candidates * beams.count
        each = largest(scores, count)
        found = best_of(*each, added, beams.count, count)
        own = each[1][:, : len(beams.eos) + 1].tolist()  # the best tokens of each beam
        steps = []
        for search, *candidates in zip(searches, *(x.tolist() for x in found), strict=True):
            steps += search.step(*candidates, scores, added, own)
        values, rows, tokens = (torch.tensor(x) for x in zip(*steps, strict=True))
        running = values.view_as(running)
        beams.advance(rows, tokens)
        if all(search.ended.done for search in searches) or beams.all_stop():
            break
        beams.read(tokens)
    for search, some in zip(searches, running.tolist(), strict=True):
        search.finish(some)
    return beams.result([search.ended.found for search in searches])


def _constraints(config, vocab: int):
    if config.num_beams < 2:
        raise ValueError(f"constrained_beam_search: num_beams is {config.num_beams}, expected more than 1")
    for name, off in (("do_sample", (False, None)), ("num_beam_groups", (1, None))):
        if getattr(config, name, None) not in off:
            raise ValueError(f"constrained_beam_search: {name} is {getattr(config, name)}, expected {off[0]}")
    return constraints_of(config, vocab)


class _Search:
    """That of one prompt: how far its beams are, and what ended."""

    def __init__(self, beams, prompt: int, constraints, furthest: int):
        self._beams = beams
        self._first = prompt * beams.count
        self._progress = [Progress(constraints)] * beams.count
        self._texts: list[tuple[int, ...]] = [()] * beams.count  # new tokens
        self.ended = Hypotheses(beams.count, beams.config, furthest)

    def step(self, values, at, tokens, scores, added, own):
        """The beams of the next step, as (score, row, token); from the best continuations of these."""
        beams, first = self._beams, self._first
        if self.ended.done:
            return [(0.0, first, max(beams.fill, 0))] * beams.count
        going, ending = sort(values, at, tokens, beams.eos, beams.count)
        for score, beam, token in ending:
            if self._progress[beam].completed:
                self.ended.add(*beams.ended(first + beam, torch.tensor([token])), score)
        going = self._allocate(going, scores, added, own)
        self._progress = [self._progress[beam].after(token) for _, beam, token in going]
        self._texts = [(*self._texts[beam], token) for _, beam, token in going]
        self.ended.look_ahead(values[0], beams.length + 1 - beams.prompt_length)
        return [(score, first + beam, token) for score, beam, token in going]

    def _allocate(self, going, scores, added, own):
        """Of these candidates and those that the beams themselves have, as many, from all banks."""
        seen = {(*self._texts[beam], token) for _, beam, token in going}
        more = []
        for beam, progress in enumerate(self._progress):
            row = self._first + beam
            best = [token for token in own[row] if token not in self._beams.eos][:1]
            for token in progress.advance() + best:
                text, score = (*self._texts[beam], token), float(scores[row, token] + added[row])
                if text not in seen and score > -math.inf:
                    seen.add(text)
                    more.append((score, beam, token))
        banks: dict[int, list] = {}
        for candidate in going + more:
            bank = self._progress[candidate[1]].after(candidate[2]).bank()
            banks.setdefault(bank, []).append(candidate)
        ranked = []
        for bank in sorted(banks, reverse=True):
            some = sorted(banks[bank], key=lambda candidate: candidate[0], reverse=True)
            ranked += [(place, candidate) for place, candidate in enumerate(some)]
        ranked.sort(key=lambda one: one[0])  # stable: within a place the highest bank first
        return [candidate for _, candidate in ranked[: len(going)]]

    def finish(self, running) -> None:
        """When time is up: what goes on counts as ended."""
        if self.ended.done:
            return
        for beam, score in enumerate(running):
            tokens, parents = self._beams.ended(self._first + beam)
            self.ended.add(tokens, parents, score, self._progress[beam].completed)

"""Beam search and beam sampling, as transformers does them.

The ``num_beams`` best texts of a prompt go on at every step; those that end are kept by their score, the sum
of log-probabilities divided by ``length ** length_penalty`` (Wu et al., arXiv:1609.08144, have another
divisor). ``early_stopping``: True stops when ``num_beams`` have ended, False when the best text that goes on
would score worse than all of them, "never" also reckons with what it may reach at the greatest length.
``do_sample`` draws the continuations, without replacement, instead of taking the best.
"""

from __future__ import annotations

import torch

from honed.generation.beams import Beams, Hypothesis, best
from honed.generation.decoding import holds_tokens
from honed.generation.stepper import why_not_engine

_OUT = -1.0e9  # the score of what must not be chosen


@torch.no_grad()
def beam_search(
    model,
    input_ids,
    logits_processor,
    stopping_criteria,
    generation_config,
    synced_gpus=False,
    **model_kwargs,
):
    """Takes and returns what transformers' own ``_beam_search`` does.

    Example:
        >>> model.generate(**inputs, num_beams=4, custom_generate=beam_search)
    """
    config = generation_config
    beams = Beams(model, input_ids, logits_processor, stopping_criteria, config, model_kwargs)
    searches = [_Ended(config, beams) for _ in range(beams.prompts)]
    count = beams.candidates * beams.count
    # Only the first beam of a prompt goes on at first: the others are its copies.
    running = torch.full((beams.prompts, beams.count), _OUT)
    running[:, 0] = 0
    while True:
        scores, rows, tokens = _continuations(beams, running.view(-1), count, config.do_sample)
        parents = rows + beams.first_row
        stops = _stops(beams, parents, tokens)
        _collect(beams, searches, scores, parents, tokens, stops)
        # Those that ended go on only where nothing else does, and never lead.
        going = scores + stops * _OUT
        order = torch.sort(going, dim=1, descending=True, stable=True)[1][:, : beams.count]
        running = torch.gather(going, 1, order)
        chosen = torch.gather(tokens, 1, order).flatten()
        beams.advance(torch.gather(parents, 1, order).flatten(), chosen)
        for search, score in zip(searches, running[:, 0].tolist(), strict=True):
            search.look_ahead(score, beams.length - beams.prompt_length)
        full = config.early_stopping is True and all(search.full for search in searches)
        if full or bool(stops.all()) or not any(search.open for search in searches):
            return beams.result([search.hypotheses for search in searches])
        beams.read(chosen)


def why_not_beams(model, input_ids, config, synced: bool, model_kwargs: dict) -> str | None:
    """The reason why transformers' own loop has to run, or None."""
    if synced:
        return "synced_gpus"
    asked = ("output_attentions", "output_hidden_states") if config.return_dict_in_generate else ()
    for name in (*asked, "prefill_chunk_size", "low_memory", "is_assistant"):
        if getattr(config, name, None):
            return name
    if holds_tokens(model_kwargs):
        return "the cache is not a new one"
    return why_not_engine(model, input_ids, model_kwargs, config.max_length)


def _continuations(beams, running, count: int, draw: bool):
    """Scores, beams (within the prompt) and tokens of ``count`` continuations, (prompts, count)."""
    scores = beams.log_probabilities()
    beams.keep(scores)
    if not draw:
        return best(scores, running, beams.count, count)
    total = (scores + running[:, None]).view(beams.prompts, -1)
    at = torch.multinomial(torch.softmax(total, dim=-1), count)
    return torch.gather(total, 1, at), at // scores.shape[1], at % scores.shape[1]


def _stops(beams, parents, tokens):
    if not beams.asks:
        return beams.ends(tokens)
    texts = torch.cat((beams.rows_text(parents.flatten()), tokens.reshape(-1, 1)), dim=1)
    return beams.ends(tokens) | beams.asked(texts).view(tokens.shape)


def _collect(beams, searches, scores, parents, tokens, stops) -> None:
    """Keeps what ended among the best ``num_beams``."""
    for prompt, rank in stops[:, : beams.count].nonzero().tolist():
        score = float(scores[prompt, rank])
        search = searches[prompt]
        if search.takes(score, beams.length + 1 - beams.prompt_length):
            row, token = parents[prompt, rank], tokens[prompt, rank : rank + 1]
            search.add(*beams.ended(row, token), score)
    for search in searches:
        search.settle()


class _Ended:
    """The texts of a prompt that ended, the best first, and whether better ones may come."""

    def __init__(self, config, beams):
        self._count, self._penalty = beams.count, config.length_penalty
        self._early = config.early_stopping
        self._furthest = beams.max_length - beams.prompt_length
        self.hypotheses: list[Hypothesis] = []
        self._new: list[Hypothesis] = []
        self.open = True

    @property
    def full(self) -> bool:
        return len(self.hypotheses) == self._count

    def takes(self, score: float, length: int) -> bool:
        if not self.open or (self.full and self._early is True):
            return False
        return not self.full or score / length**self._penalty > self.hypotheses[-1].score

    def add(self, tokens, parents, score: float) -> None:
        self._new.append(Hypothesis(tokens, parents, score / len(parents) ** self._penalty))

    def settle(self) -> None:
        """After a step: all that ended in it compete with those before."""
        if self._new:
            found = sorted(self.hypotheses + self._new, key=lambda h: h.score, reverse=True)
            self.hypotheses, self._new = found[: self._count], []

    def look_ahead(self, running: float, length: int) -> None:
        """Whether the best text that goes on, now of that score and length, may still get better."""
        if self._early == "never" and self._penalty > 0:
            length = self._furthest
        worst = self.hypotheses[-1].score if self.full else _OUT
        self.open = self.open and running / length**self._penalty > worst

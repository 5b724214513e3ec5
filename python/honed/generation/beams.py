"""What the beam searches share: reading prompts once, scoring, the best continuations, results.

Scores are sums of log-probabilities. A prompt's beams are neighbouring rows, as ``generate`` expands them.
"""

from __future__ import annotations

import torch
from transformers.generation import stopping_criteria as criteria
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput, GenerateBeamEncoderDecoderOutput

from honed.generation.decoding import CACHE, end_of, refuse_attentions
from honed.generation.stepper import stepper_for, take_rows
from honed.ops import log_softmax

_BLOCK = 64  # of the vocabulary, whose largest score is looked at first


class Beams:
    """The rows of a search: their text, the model that reads it, and what is kept for the result."""

    def __init__(self, model, input_ids, processors, stopping, config, model_kwargs):
        self.model, self.config = model, config
        refuse_attentions("beam search", config)
        self.processors, self.stopping = processors, stopping
        self.count = config.num_beams
        self.prompts = len(input_ids) // self.count
        self.prompt_length = self.length = input_ids.shape[1]
        eos = config._eos_token_tensor
        self.eos = [] if eos is None else eos.reshape(-1).tolist()
        # So many candidates that as many beams as there are go on, whatever ends.
        self.candidates = max(2, 1 + len(self.eos))
        self._read(model, input_ids, model_kwargs)
        self.max_length = end_of(config.max_length, self.length, self.step.limit)
        self.fill = self._fill()  # after a text's end
        self.text = torch.full((len(input_ids), self.max_length), self.fill, dtype=torch.int64)
        self.text[:, : self.length] = input_ids
        # Of each new token, the row that it went on from.
        self.parents = torch.full((len(input_ids), self.max_length - self.length), -1, dtype=torch.int32)
        self.first_row = torch.arange(self.prompts)[:, None] * self.count
        self.keeps_scores = bool(config.return_dict_in_generate and config.output_scores)
        self.keeps_logits = bool(config.return_dict_in_generate and config.output_logits)
        self.scores, self.raw = [], []
        # A caller's criterion stands in place of that of the configuration.
        ends = [c for c in stopping if type(c) is criteria.EosTokenCriteria]
        self.stops = [token for c in ends for token in c.eos_token_id.tolist()]
        lengths = [c for c in stopping if type(c) is criteria.MaxLengthCriteria]
        known = ends + [c for c in lengths if c.max_length >= self.max_length]
        self.asks = criteria.StoppingCriteriaList(c for c in stopping if c not in known)

    def _read(self, model, input_ids, model_kwargs):
        """The prompts, each once: its beams share what the model remembers of it."""
        cache = model_kwargs.get(CACHE)
        held = 0 if cache is None else cache.get_seq_length()
        rows, limit = torch.arange(len(input_ids)), self.config.max_length
        if held == 0 and self.count > 1:
            first = rows[:: self.count]
            model_kwargs = {k: take_rows(v, first, len(rows)) for k, v in model_kwargs.items()}
            self.step = stepper_for(model, input_ids[first], model_kwargs, limit)
            logits = self.step(input_ids[first])[:, -1]
            self.step.reorder(torch.arange(self.prompts).repeat_interleave(self.count))
            self.logits = logits.repeat_interleave(self.count, 0)
        else:
            self.step = stepper_for(model, input_ids, model_kwargs, limit)
            self.logits = self.step(input_ids[:, held:])[:, -1]

    def _fill(self) -> int:
        if not self.eos:
            return -1
        pad = self.config._pad_token_tensor
        return int(pad) if pad is not None and int(pad) else self.eos[0]

    def rows_text(self, rows=slice(None)):
        return self.text[rows, : self.length]

    def log_probabilities(self, rows=slice(None), before=None):
        """Of the tokens that may follow, after the processors; ``before`` changes them first."""
        scores = log_softmax(self.logits[rows], dim=-1)
        if before is not None:
            scores = before(scores)
        return self.processors(self.rows_text(rows), scores) if self.processors else scores

    def keep(self, scores) -> None:
        """Of this step, what the result has beside the texts."""
        if self.keeps_scores:
            self.scores.append(scores.clone())
        if self.keeps_logits:
            self.raw.append(self.logits.clone())

    def ends(self, tokens) -> torch.Tensor:
        """Which tokens, put after a text, end it: eos, or the greatest length."""
        if self.length + 1 >= self.max_length:
            return torch.ones_like(tokens, dtype=torch.bool)
        ended = torch.zeros_like(tokens, dtype=torch.bool)
        for token in self.stops:
            ended |= tokens == token
        return ended

    def asked(self, texts) -> torch.Tensor:
        """Which of ``texts`` the other criteria end."""
        scores = tuple(self.scores) if self.keeps_scores else None
        return self.asks(texts, scores)

    def all_stop(self) -> bool:
        """Whether the criteria end the texts of all beams."""
        if self.length >= self.max_length:
            return True
        scores = tuple(self.scores) if self.keeps_scores else None
        return bool(self.stopping and self.stopping(self.rows_text(), scores).all())

    def ended(self, row, tokens=None):
        """The text of a row, followed by ``tokens``, and the rows that its new tokens went on from."""
        text = self.text[row, : self.length]
        made = self.parents[row, : self.length - self.prompt_length]
        if tokens is None:
            return text, made
        return torch.cat((text, tokens)), torch.cat((made, torch.tensor([int(row)], dtype=torch.int32)))

    def advance(self, rows, tokens) -> None:
        """Row b is now row ``rows[b]`` followed by ``tokens[b]``."""
        self.text = self.text[rows]
        self.text[:, self.length] = tokens
        self.parents = self.parents[rows]
        self.parents[:, self.length - self.prompt_length] = rows
        self.step.reorder(rows)
        self.length += 1

    def read(self, tokens) -> None:
        self.logits = self.step(tokens[:, None])[:, -1]

    def result(self, found: list[list[Hypothesis]]):
        """What ``generate`` returns for the best hypotheses of each prompt, best first."""
        chosen = [h for some in found for h in some[: self.config.num_return_sequences]]
        width = max(len(h.tokens) for h in chosen)
        steps = max(len(h.parents) for h in chosen)
        sequences = torch.full((len(chosen), width), self.fill, dtype=torch.int64)
        parents = torch.full((len(chosen), steps), -1, dtype=torch.int32)
        for i, hypothesis in enumerate(chosen):
            sequences[i, : len(hypothesis.tokens)] = hypothesis.tokens
            parents[i, : len(hypothesis.parents)] = hypothesis.parents
        if not self.config.return_dict_in_generate:
            return sequences
        made = {
            "sequences": sequences,
            "sequences_scores": torch.tensor([h.score for h in chosen]) if self.keeps_scores else None,
            "scores": tuple(self.scores) if self.keeps_scores else None,
            "logits": tuple(self.raw) if self.keeps_logits else None,
            "beam_indices": parents,
            CACHE: self.step.cache,
        }
        if self.model.config.is_encoder_decoder:
            return GenerateBeamEncoderDecoderOutput(**made)
        return GenerateBeamDecoderOnlyOutput(**made)


class Hypothesis:
    """A text that ended: all its tokens, the rows that it went through, its score by length."""

    __slots__ = ("fulfils", "parents", "score", "tokens")

    def __init__(self, tokens, parents, score: float, fulfils: bool = True):
        self.tokens, self.parents, self.score, self.fulfils = tokens, parents, score, fulfils


def best(scores, beam_scores, beams: int, count: int):
    """The ``count`` best continuations of each prompt's beams: scores, beams and tokens, (prompts, count).

    ``beam_scores`` (rows,) is added to ``scores`` (rows, V).
    """
    return best_of(*largest(scores, count), beam_scores, beams, count)


def best_of(values, tokens, beam_scores, beams: int, count: int):
    """As :func:`best`, of the largest scores of each row and their tokens."""
    total = (values + beam_scores[:, None]).view(-1, beams * values.shape[1])
    top, at = torch.topk(total, min(count, total.shape[1]))
    return top, at // values.shape[1], torch.gather(tokens.view(total.shape), 1, at)


def largest(scores, count: int):
    """As ``torch.topk``, of at most all: the best blocks first, where this saves most of its work."""
    rows, size = scores.shape
    count = min(count, size)
    blocks = size // _BLOCK
    if blocks <= 4 * count:
        return torch.topk(scores, count)
    whole = scores[:, : blocks * _BLOCK].unflatten(1, (blocks, _BLOCK))
    # The best `count` lie in the blocks with the `count` largest maxima, or in the rest.
    chosen = torch.topk(whole.amax(-1), count)[1].sort()[0]
    few = torch.gather(whole, 1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    ids = (chosen[:, :, None] * _BLOCK + torch.arange(_BLOCK)).flatten(1)
    rest = torch.arange(blocks * _BLOCK, size).expand(rows, -1)
    values, at = torch.topk(torch.cat((few, scores[:, blocks * _BLOCK :]), 1), count)
    return values, torch.gather(torch.cat((ids, rest), 1), 1, at)

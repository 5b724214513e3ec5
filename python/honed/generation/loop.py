"""What a decoding loop does around the choice of a token: records, padding, streaming, stopping."""

from __future__ import annotations

import torch
from transformers.generation.utils import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput

from honed.generation.decoding import CACHE, end_of, pad_of, refuse_attentions


class Loop:
    """The tokens so far, which rows go on, and what ``generate`` was asked to return.

    Raises ValueError for what a strategy here has not: attentions and hidden states among the results.
    """

    def __init__(self, name, model, input_ids, processors, criteria, config, streamer):
        self.ids = input_ids
        self.end = config.max_length
        self._model = model
        self._processors = processors
        self._criteria = criteria
        self._config = config
        self._streamer = streamer
        self._pad = pad_of(config)
        self._going = torch.ones(len(input_ids), dtype=torch.bool)
        dictionary = config.return_dict_in_generate
        self._scores = [] if dictionary and config.output_scores else None
        self._logits = [] if dictionary and config.output_logits else None
        refuse_attentions(name, config)

    def keep_below(self, limit: int | None) -> None:
        """Stops at ``limit`` tokens, and says so, where more were asked for."""
        self.end = end_of(self.end, self.ids.shape[1], limit)

    @property
    def room(self) -> int:
        """Tokens below the maximum length."""
        return self.end - self.ids.shape[1]

    def process(self, logits: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor:
        """The processors' scores for float32 ``logits`` (B, V) after the tokens ``before`` (all so far)."""
        if not len(self._processors):
            return logits
        return self._processors(self.ids if before is None else before, logits.clone())

    def record(self, logits: torch.Tensor, scores: torch.Tensor) -> None:
        """Keeps one step's (B, V) logits and scores, where asked for."""
        if self._logits is not None:
            self._logits.append(logits.clone())
        if self._scores is not None:
            self._scores.append(scores.clone())

    def choose(self, scores: torch.Tensor) -> torch.Tensor:
        """The best token of each row, or one drawn."""
        if not self._config.do_sample:
            return scores.argmax(-1)
        return draw(scores.softmax(-1))

    def push(self, tokens: torch.Tensor) -> bool:
        """Appends a token a row (B,), padding to finished rows; True while any row goes on."""
        tokens = torch.where(self._going, tokens.to(self.ids.dtype), self._pad)
        if self._streamer is not None:
            self._streamer.put(tokens.cpu())
        self.ids = torch.cat((self.ids, tokens[:, None]), dim=1)
        scores = None if self._scores is None else tuple(self._scores)
        self._going &= ~self._criteria(self.ids, scores)
        return bool(self._going.any()) and self.room > 0

    def result(self, cache):
        if self._streamer is not None:
            self._streamer.end()
        if not self._config.return_dict_in_generate:
            return self.ids
        found = {
            "sequences": self.ids,
            "scores": None if self._scores is None else tuple(self._scores),
            "logits": None if self._logits is None else tuple(self._logits),
            CACHE: cache,
        }
        return (
            GenerateEncoderDecoderOutput(**found)
            if self._model.config.is_encoder_decoder
            else GenerateDecoderOnlyOutput(**found)
        )


def draw(chances: torch.Tensor) -> torch.Tensor:
    """A token of each row (B,), drawn by its probabilities (B, V), which need not sum to 1."""
    below = chances.cumsum(-1, dtype=torch.float64)
    at = torch.rand(len(chances), 1, dtype=torch.float64) * below[:, -1:]
    return torch.searchsorted(below, at, right=True)[:, 0].clamp_(max=chances.shape[-1] - 1)

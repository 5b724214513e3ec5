"""Contrastive search (Su et al. 2022, https://arxiv.org/abs/2202.06417)."""

from __future__ import annotations

import torch

from honed.generation.loop import Loop
from honed.generation.stepper import stepper_for


def contrastive_search(
    model,
    input_ids,
    logits_processor,
    stopping_criteria,
    generation_config,
    synced_gpus=False,
    streamer=None,
    tokenizer=None,
    **model_kwargs,
):
    """Of the ``top_k`` likeliest tokens the one with the largest

    ``(1 - penalty_alpha) * p(token) - penalty_alpha * max_j cos(h_token, h_j)``

    where p is the model's probability after the processors, h_token the last hidden state that the model has
    once it has read the token, and h_j those of all tokens before it (padding apart).

    A decoding method as ``generate`` calls it: ``model.generate(ids, penalty_alpha=0.6, top_k=4)`` on a honed
    model runs it. The candidates of a row are rows of one batch.

    Raises:
        ValueError: ``use_cache=False``, a cache of fixed size, ``penalty_alpha`` outside of 0 to 1, or
            attentions or hidden states among the results.
    """
    if model_kwargs.get("use_cache") is False:
        raise ValueError("contrastive search: use_cache is False, expected True")
    kind = generation_config.cache_implementation
    if kind is not None and "static" in kind:
        raise ValueError(f"contrastive search: cache_implementation is {kind!r}, expected one that grows")
    if not 0 <= generation_config.penalty_alpha <= 1:
        alpha = generation_config.penalty_alpha
        raise ValueError(f"contrastive search: penalty_alpha is {alpha}, expected 0 to 1")
    loop = Loop(
        "contrastive search",
        model,
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        streamer,
    )
    alpha, rows = generation_config.penalty_alpha, len(input_ids)
    stepper = stepper_for(model, input_ids, model_kwargs, generation_config.max_length)
    loop.keep_below(stepper.limit)
    logits, hidden = stepper(input_ids[:, stepper.length :], hidden=True)
    past = _Past(hidden, _real(model, model_kwargs, hidden), loop.room)
    top_k = min(generation_config.top_k, logits.shape[-1])
    spread = torch.arange(rows).repeat_interleave(top_k)
    while True:
        scores = loop.process(logits[:, -1])
        loop.record(logits[:, -1], scores)
        chances, candidates = scores.softmax(-1).topk(top_k)
        stepper.reorder(spread)
        logits, hidden = stepper(candidates.reshape(-1, 1), hidden=True)
        states = torch.nn.functional.normalize(hidden[:, 0].view(rows, top_k, -1), dim=-1)
        penalty = past.closest(states)
        best = ((1 - alpha) * chances - alpha * penalty).argmax(-1)
        spread_best = torch.arange(rows) * top_k + best
        past.add(states[torch.arange(rows), best])
        going = loop.push(candidates.gather(1, best[:, None])[:, 0])
        stepper.reorder(spread_best)
        if not going:
            return loop.result(stepper.cache)
        logits = logits[spread_best]


def _real(model, model_kwargs, hidden):
    """Which of the prompt's tokens are not padding; None: all."""
    name = "decoder_attention_mask" if model.config.is_encoder_decoder else "attention_mask"
    mask = model_kwargs.get(name)
    return None if mask is None or bool(mask.all()) else mask[:, -hidden.shape[1] :] != 0


class _Past:
    """The hidden states of the tokens so far, at length 1."""

    def __init__(self, hidden, real, room: int):
        rows, self.length, width = hidden.shape
        self._states = hidden.new_empty(rows, self.length + room, width)
        torch.nn.functional.normalize(hidden, dim=-1, out=self._states[:, : self.length])
        self._padding = None if real is None else ~real[..., None]

    def add(self, states):
        """One token's (B, C)."""
        self._states[:, self.length] = states
        self.length += 1

    def closest(self, states):
        """The largest cosine of each of the candidates (B, k, C) with any token's: (B, k)."""
        cosines = self._states[:, : self.length] @ states.transpose(1, 2)
        if self._padding is not None:
            cosines[:, : self._padding.shape[1]].masked_fill_(self._padding, -torch.inf)
        return cosines.amax(1)

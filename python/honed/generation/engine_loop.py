"""The engine's decoding loop, as transformers' ``generate`` calls it."""

from __future__ import annotations

import functools

import torch
from transformers.generation.utils import GenerateDecoderOnlyOutput

from honed.generation.decoding import CACHE, Plan, end_of


class _Text:
    """The tokens so far, kept only where somebody between the steps reads them."""

    def __init__(self, prompt: torch.Tensor, room: int):
        self._ids = torch.cat((prompt, prompt.new_zeros(len(prompt), room)), dim=1)
        self._length = prompt.shape[1]

    def append(self, tokens: torch.Tensor) -> None:
        self._ids[:, self._length] = tokens
        self._length += 1

    @property
    def ids(self) -> torch.Tensor:
        return self._ids[:, : self._length]


def decode(model, input_ids, plan: Plan, streamer, cache, positions, mask):
    """The prompt and what the engine made of it, as transformers' ``_sample`` returns it.

    ``positions`` and ``mask`` as the engine takes them.
    """
    handle = model._honed
    rows, length = input_ids.shape
    room = end_of(plan.max_length, length, handle.binding.limit) - length
    seeds = torch.randint(0, 1 << 62, (rows,)).tolist() if plan.sampling["do_sample"] else [0] * rows
    handle.calls += 1
    text = _Text(input_ids, room) if plan.masks or plan.criteria else None
    scores = [] if plan.scores else None
    logits = [] if plan.logits else None

    def emit(tokens):
        # Also without a streamer: returning to Python at every token is what lets Ctrl-C through.
        new = torch.tensor(tokens)
        if streamer is not None:
            streamer.put(new)
        if text is None:
            return False
        text.append(new)
        made = None if scores is None else tuple(scores)
        return plan.criteria(text.ids, made).tolist() if plan.criteria else False

    vocab = model.config.get_text_config().vocab_size
    out = handle.engine.generate(
        cache.open(handle, rows, length + room),
        input_ids.to(torch.int64).contiguous(),
        positions,
        mask,
        room,
        plan.stop,
        plan.pad,
        {
            "sampling": plan.sampling,
            "seeds": seeds,
            "rules": plan.rules,
            "allowed": (lambda: _allowed(plan.masks, text.ids, vocab)) if plan.masks else None,
            "scores": scores,
            "logits": logits,
        },
        emit,
    ).to(input_ids.dtype)
    if streamer is not None:
        streamer.end()
    if not plan.dictionary:
        return out
    if scores is not None and plan.renormalize:
        scores = [each.log_softmax(-1) for each in scores]
    found = {
        "sequences": out,
        "scores": None if scores is None else tuple(scores),
        "logits": None if logits is None else tuple(logits),
        CACHE: cache,
    }
    return GenerateDecoderOnlyOutput(**found)


def _allowed(masks, ids, vocab):
    return functools.reduce(torch.bitwise_and, (mask(ids, vocab) for mask in masks)).contiguous()

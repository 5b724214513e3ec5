"""Classifier-free guidance (Sanchez et al. 2023, https://arxiv.org/abs/2306.17806) in one pass a token."""

from __future__ import annotations

import torch
from transformers.generation import LogitsProcessorList, UnbatchedClassifierFreeGuidanceLogitsProcessor

from honed.generation.decoding import CACHE, holds_tokens, note
from honed.generation.loop import Loop
from honed.generation.stepper import stepper_for, why_not_engine


def guidance(
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
    """Scores ``log u + guidance_scale * (log p - log u)``: p is the model's distribution after the prompt, u
    the one after ``negative_prompt_ids`` (where there are none, after the prompt's last token) and the same
    new tokens. Both are rows of one batch, so the weights are read once.

    A decoding method as ``generate`` calls it: ``model.generate(ids, guidance_scale=1.5,
    negative_prompt_ids=others)`` on a honed model runs it. What does not run on the engine, transformers'
    own loop does, with a second call a token.
    """
    found = [
        at
        for at, processor in enumerate(logits_processor)
        if type(processor) is UnbatchedClassifierFreeGuidanceLogitsProcessor
    ]
    reason = why_not_engine(model, input_ids, model_kwargs, generation_config.max_length)
    if reason is None and (synced_gpus or found != [0] or holds_tokens(model_kwargs)):
        reason = "synced_gpus, a cache that holds tokens or guidance after other processors"
    if reason is None:
        guide = logits_processor[0]
        negative = guide.unconditional_context["input_ids"]
        if negative is not None and len(negative) != len(input_ids):
            raise ValueError(
                f"guidance: negative_prompt_ids has {len(negative)} rows, expected the {len(input_ids)} of "
                "the prompts"
            )
        ids, mask = _beside(input_ids, model_kwargs.get("attention_mask"), guide.unconditional_context)
        more = ids.shape[1] - input_ids.shape[1]  # by which the negative prompt is longer
        if generation_config.max_length + more > model._honed.binding.limit:
            reason = "the negative prompt and the new tokens are more than the positions of the model"
    if reason is not None:
        note(model, f"guidance: {reason}")
        return model._sample(
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            synced_gpus=synced_gpus,
            streamer=streamer,
            **model_kwargs,
        )
    others = LogitsProcessorList(logits_processor[1:])
    loop = Loop("guidance", model, input_ids, others, stopping_criteria, generation_config, streamer)
    stepper = stepper_for(model, ids, {"attention_mask": mask, CACHE: model_kwargs.get(CACHE)})
    while True:
        logits, negative = stepper(ids)[:, -1].chunk(2)
        given, without = logits.log_softmax(-1), negative.log_softmax(-1)
        scores = loop.process(without + guide.guidance_scale * (given - without))
        loop.record(logits, scores)
        if not loop.push(loop.choose(scores)):
            return loop.result(_own_rows(stepper, len(input_ids), more))
        ids = loop.ids[:, -1:].repeat(2, 1)


def _own_rows(stepper, rows: int, more: int):
    """The prompts' part of the cache, from which ``generate`` may go on; none with padding before it."""
    if more:
        return None
    stepper.reorder(torch.arange(rows))
    return stepper.cache


def _beside(input_ids, mask, context):
    """Prompts and, below them, negative prompts, the shorter ones padded on the left; and their mask."""
    negative, real = context["input_ids"], context["attention_mask"]
    if negative is None:
        negative, real = input_ids[:, -1:], None
    width = max(input_ids.shape[1], negative.shape[1])
    rows, masks = [], []
    for ids, kept in ((input_ids, mask), (negative, real)):
        kept = torch.ones_like(ids) if kept is None else kept
        pad = (width - ids.shape[1], 0)
        rows.append(torch.nn.functional.pad(ids, pad))
        masks.append(torch.nn.functional.pad(kept, pad))
    return torch.cat(rows), torch.cat(masks)

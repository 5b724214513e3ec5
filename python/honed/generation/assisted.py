"""Assisted decoding: a draft is checked by the model in one pass (Leviathan et al. 2022,
https://arxiv.org/abs/2211.17192; Chen et al. 2023, https://arxiv.org/abs/2302.01318)."""

from __future__ import annotations

import torch
from transformers.generation import candidate_generator, logits_process

from honed.generation.decoding import CACHE, note
from honed.generation.loop import Loop, draw
from honed.generation.processors import Mirostat
from honed.generation.stepper import stepper_for, why_not_engine

# They count on being called once a token, with the tokens that stay.
_STATEFUL = (
    Mirostat,
    logits_process.SynthIDTextWatermarkLogitsProcessor,
    logits_process.UnbatchedClassifierFreeGuidanceLogitsProcessor,
)


def assisted_decoding(
    model,
    input_ids,
    transformers_own,
    logits_processor,
    stopping_criteria,
    generation_config,
    synced_gpus=False,
    streamer=None,
    inputs_tensor=None,
    assistant_model=None,
    assistant_tokenizer=None,
    tokenizer=None,
    **model_kwargs,
):
    """What ``generate`` runs for ``assistant_model=`` and ``prompt_lookup_num_tokens=``: greedy the model's
    own greedy text, with ``do_sample=True`` draws of exactly the model's own distribution.

    A drafted token x is kept with probability ``min(1, p(x) / q(x))``, p the model's and q the draft's
    distribution (after the processors); the first that is not is drawn anew from ``max(0, p - q)``, and
    where all are kept one more is drawn from p. Drafts of n-grams of the prompt have q = 1.

    The draft's length is the assistant's ``generation_config``: ``num_assistant_tokens``, changed by a
    ``num_assistant_tokens_schedule`` of "heuristic", cut after a token that the assistant gives less than
    ``assistant_confidence_threshold``. For the model as its own draft:
    ``model.generate(ids, assistant_model=honed.hone(copy.deepcopy(model), weights="int4"))``.

    ``transformers_own``, the method of that class, runs whatever does not run on the engine. Processors that
    have to see each token once (mirostat, SynthID, guidance) run without a draft.
    """
    given = {
        "logits_processor": logits_processor,
        "stopping_criteria": stopping_criteria,
        "generation_config": generation_config,
        "synced_gpus": synced_gpus,
        "streamer": streamer,
        **model_kwargs,
    }
    stateful = next((type(p).__name__ for p in logits_processor if isinstance(p, _STATEFUL)), None)
    if stateful is not None:
        note(model, f"assisted decoding: without a draft, {stateful} has to see each token once")
        return model._sample(input_ids, **given)
    reason = _why_not(model, input_ids, generation_config, assistant_model, assistant_tokenizer, model_kwargs)
    if reason is not None or synced_gpus:
        note(model, f"assisted decoding: {reason or 'synced_gpus'}")
        return transformers_own(
            input_ids,
            inputs_tensor=inputs_tensor,
            assistant_model=assistant_model,
            assistant_tokenizer=assistant_tokenizer,
            tokenizer=tokenizer,
            **given,
        )
    loop = Loop(
        "assisted decoding",
        model,
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        streamer,
    )
    stepper = stepper_for(model, input_ids, model_kwargs, generation_config.max_length)
    loop.keep_below(stepper.limit)
    if generation_config.prompt_lookup_num_tokens is not None:
        draft = _Lookup(generation_config)
    else:
        draft = _Draft(assistant_model, input_ids, loop, generation_config.do_sample, model_kwargs)
    going = True
    while going:
        before = loop.ids
        tokens, q = draft.propose(before, loop.room - 1)
        whole = torch.cat((before, tokens), 1)
        logits = stepper(whole[:, stepper.length :], keep=tokens.shape[1] + 1)
        scores = _processed(loop, whole, logits)
        valid = (_verify if generation_config.do_sample else _compare)(tokens[0], scores[0], q)
        draft.learn(len(valid) - 1, tokens.shape[1])
        for i, token in enumerate(valid):
            loop.record(logits[:, i], scores[:, i])
            going = loop.push(token[None])
            if not going:
                break
        stepper.crop(loop.ids.shape[1] - 1)
    draft.finish()
    return loop.result(stepper.cache)


def _why_not(model, input_ids, config, assistant, assistant_tokenizer, model_kwargs):
    """Why transformers' own loop runs: it has more kinds of drafts, and what it refuses it explains."""
    for name in ("use_mtp", "assistant_early_exit", "assistant_ensemble_weight", "speculation_type"):
        if getattr(config, name, None):
            return name
    if assistant_tokenizer is not None:
        return "assistant_tokenizer"
    if len(input_ids) > 1:
        return "several rows"
    if config.return_dict_in_generate and (config.output_attentions or config.output_hidden_states):
        return "attentions or hidden states among the results"
    reason = why_not_engine(model, input_ids, model_kwargs, config.max_length)
    if reason is None and assistant is not None:
        reason = why_not_engine(assistant, input_ids, _for_draft(model_kwargs))
        reason = reason and f"the assistant: {reason}"
    return reason


def _processed(loop, whole, logits):
    """Scores (1, n, V) of the drafted tokens at the end of ``whole`` and of the one after them, but none
    behind a token that the processors forbid: a grammar cannot go on from it."""
    drafted = logits.shape[1] - 1
    start = whole.shape[1] - drafted
    found = []
    for i in range(drafted + 1):
        found.append(loop.process(logits[:, i], whole[:, : start + i]))
        if i < drafted and float(found[-1][0, whole[0, start + i]]) == -torch.inf:
            break
    return torch.stack(found, 1)


def _for_draft(model_kwargs: dict) -> dict:
    return {name: value for name, value in model_kwargs.items() if name != CACHE}


def _compare(tokens, scores, q):
    """The drafted tokens that are the best ones, and the best one after them."""
    best = scores.argmax(-1)
    kept = int((tokens[: len(best) - 1] == best[:-1]).long().cumprod(0).sum())
    return best[: kept + 1]


def _verify(tokens, scores, q):
    """Tokens distributed as draws from the scores' softmax: algorithm 1 of Leviathan et al."""
    p = scores.softmax(-1)
    for i, token in enumerate(tokens):
        mine, theirs = p[i], q[i]
        drafted = 1.0 if theirs is None else float(theirs[token])
        if float(torch.rand(())) * drafted < float(mine[token]):
            continue
        rest = mine.clone()
        if theirs is None:
            rest[token] = 0
        else:
            rest = (rest - theirs).clamp_(min=0)
        # Nothing is left where p and q differ by rounding alone.
        return torch.cat((tokens[:i], draw((rest if float(rest.sum()) > 0 else mine)[None])))
    return torch.cat((tokens, draw(p[-1:])))


class _Draft:
    """Tokens of a smaller model, and their distributions where they are drawn."""

    def __init__(self, assistant, input_ids, loop, sampled, model_kwargs):
        self._config = assistant.generation_config
        defaults = self._config._get_default_generation_params()

        def option(name):
            value = getattr(self._config, name, None)
            return defaults.get(name) if value is None else value

        self._count = option("num_assistant_tokens")
        self._schedule = option("num_assistant_tokens_schedule")
        self._threshold = option("assistant_confidence_threshold") or 0
        self._loop, self._sampled = loop, sampled
        self._stepper = stepper_for(assistant, input_ids, _for_draft(model_kwargs))

    def propose(self, ids, most: int):
        """Up to ``most`` tokens after ``ids`` (1, T): (1, n), and what each was drawn from."""
        stepper, start = self._stepper, ids.shape[1]
        stepper.crop(start - 1)
        if stepper.limit is not None:
            most = min(most, stepper.limit - start)
        found = []
        for _ in range(min(int(self._count), most)):
            scores = self._loop.process(stepper(ids[:, stepper.length :])[:, -1], ids)
            chances = scores.softmax(-1)
            token = draw(chances) if self._sampled else scores.argmax(-1)
            ids = torch.cat((ids, token[:, None].to(ids.dtype)), 1)
            found.append(chances[0])
            if float(chances[0, token]) < self._threshold:
                break
        return ids[:, start:], found

    def learn(self, kept: int, drafted: int) -> None:
        """Longer drafts after one that was kept whole, else shorter ones."""
        if self._schedule in ("heuristic", "heuristic_transient") and drafted:
            self._count = self._count + 2 if kept == drafted else max(1, self._count - 1)

    def finish(self) -> None:
        if self._schedule == "heuristic":
            self._config.num_assistant_tokens = self._count


class _Lookup:
    """What followed the last n-gram where it stood before: transformers' own search."""

    def __init__(self, config):
        self._generator = candidate_generator.PromptLookupCandidateGenerator(
            eos_token_id=config._eos_token_tensor,
            num_output_tokens=config.prompt_lookup_num_tokens,
            max_matching_ngram_size=config.max_matching_ngram_size or 2,
            max_length=config.max_length,
        )

    def propose(self, ids, most: int):
        found = self._generator.get_candidates(ids)[0][:, ids.shape[1] :][:, : max(most, 0)]
        return found, [None] * found.shape[1]

    def learn(self, kept: int, drafted: int) -> None:
        pass

    def finish(self) -> None:
        pass

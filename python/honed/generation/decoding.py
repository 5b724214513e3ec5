"""Which of transformers' decoding options the engine's own loop does."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass, field

import torch
from transformers.generation import logits_process as theirs
from transformers.generation import stopping_criteria
from transformers.modeling_outputs import CausalLMOutputWithPast

from honed.generation import processors as ours
from honed.generation.order import FILTERS
from honed.ops._sample_options import mask_words

# The cache among the arguments and results of a model: transformers 5.24 renamed it.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
_INSIDE = ("honed", "transformers", "torch")
_MODEL_ARGUMENTS = frozenset(("attention_mask", "position_ids", CACHE, "use_cache"))


@dataclass(frozen=True)
class Plan:
    """What the engine's loop is asked to do."""

    max_length: int
    stop: list[int]
    pad: int  # -1: rows that are finished go on, nothing pads them
    sampling: dict
    rules: list[list[dict]]  # a list for each row
    masks: list = field(default_factory=list)  # functions of (ids, vocabulary) that give allowed tokens
    criteria: list = field(default_factory=list)  # a StoppingCriteriaList, asked after every step
    scores: bool = False
    logits: bool = False
    renormalize: bool = False  # the scores that are returned
    dictionary: bool = False


class _Cannot(Exception):
    """Why transformers' own loop has to run."""


def plan_decoding(processors, criteria, config, synced, model_kwargs, rows: int = 1) -> Plan | str:
    """The plan, or the reason why transformers' own loop has to run.

    Takes what ``generate`` hands to its decoding method: processors and criteria already stand for every
    option of the call, of ``generation_config.json`` and of the defaults, so that one unknown here is seen.
    """
    try:
        found = _Processors(bool(config.do_sample), rows)
        for processor in processors:
            found.add(processor)
        found.check()
        length, stop, others = _criteria(criteria)
    except _Cannot as reason:
        return str(reason)
    dictionary = bool(config.return_dict_in_generate)
    padded = any(hasattr(each, "eos_token_id") for each in criteria)
    return _other_reason(config, synced, model_kwargs) or Plan(
        length,
        stop,
        pad_of(config) if padded else -1,
        found.sampling,
        found.rules,
        found.masks,
        others,
        dictionary and bool(config.output_scores),
        dictionary and bool(config.output_logits),
        found.renormalize,
        dictionary,
    )


class _Processors:
    """Processors, one after the other, as the engine's rules and sampling options."""

    def __init__(self, do_sample: bool, rows: int):
        self.sampling = {"do_sample": do_sample}
        self.rules = [[] for _ in range(rows)]
        self.masks = []
        self.renormalize = False
        self._ignored = None
        self._last = -1

    def add(self, processor):
        kind = type(processor)
        if kind is theirs.LogitNormalization:
            self.renormalize = True  # changes no choice
        elif self.renormalize:
            raise _Cannot(f"{kind.__name__} after renormalize_logits")
        elif kind in FILTERS:
            self._filter(processor)
        elif kind in _RULES:
            if self._last >= 0:
                raise _Cannot(f"{kind.__name__} after {FILTERS[self._last].__name__}")
            self._rule(processor)
        else:
            raise _Cannot(kind.__name__)

    def _rule(self, processor):
        rows = len(self.rules)
        for row, rules in enumerate(self.rules):
            made = _RULES[type(processor)](processor, row, rows)
            if made is None:
                raise _Cannot(f"{type(processor).__name__} for another number of rows")
            rules.append(made)
        if isinstance(processor, theirs.PrefixConstrainedLogitsProcessor):
            self.masks.append(_prefix_mask(processor._prefix_allowed_tokens_fn))
        elif isinstance(processor, ours.Allowed):
            self.masks.append(processor.mask)

    def _filter(self, processor):
        name, place = type(processor).__name__, FILTERS.index(type(processor))
        if not self.sampling["do_sample"]:
            raise _Cannot(name)
        if place <= self._last or getattr(processor, "min_tokens_to_keep", 1) != 1:
            raise _Cannot(f"{name} in an unusual order or with min_tokens_to_keep")
        if getattr(processor, "filter_value", -math.inf) != -math.inf:
            raise _Cannot(f"{name} with a filter_value")
        self._last = place
        self.sampling |= {
            option: float(value)
            if isinstance(value := getattr(processor, attribute), torch.Tensor)
            else value
            for option, attribute in _FILTER_OPTIONS[type(processor)].items()
        }

    def check(self):
        if self.sampling.get("top_p", 1.0) <= 0:
            raise _Cannot("top_p is not above 0")
        for rules in self.rules:
            ignored = {rule["prompt_ignore_length"] for rule in rules if "prompt_ignore_length" in rule}
            if len(ignored) > 1:
                raise _Cannot("penalties that pass over different lengths")


_FILTER_OPTIONS = {
    theirs.TemperatureLogitsWarper: {"temperature": "temperature"},
    theirs.TopHLogitsWarper: {"top_h": "top_h"},
    theirs.TopKLogitsWarper: {"top_k": "top_k"},
    theirs.TopPLogitsWarper: {"top_p": "top_p"},
    theirs.MinPLogitsWarper: {"min_p": "min_p"},
    theirs.TypicalLogitsWarper: {"typical_p": "mass"},
    theirs.EpsilonLogitsWarper: {"epsilon_cutoff": "epsilon"},
    theirs.EtaLogitsWarper: {"eta_cutoff": "epsilon"},
    ours.DynamicTemperature: {n: n for n in ("temperature", "dynatemp_range", "dynatemp_exponent")},
    ours.TopNSigma: {"top_n_sigma": "top_n_sigma"},
    ours.Xtc: {n: n for n in ("xtc_probability", "xtc_threshold")},
    ours.Mirostat: {n: n for n in ("mirostat", "mirostat_tau", "mirostat_eta")},
}


def _repetition(processor, row, rows):
    ignored = processor.prompt_ignore_length
    if isinstance(ignored, torch.Tensor):
        if len(ignored) != rows:
            return None
        ignored = int(ignored[row])
    return {"repetition_penalty": processor.penalty, "prompt_ignore_length": ignored or 0}


def _encoder_repetition(processor, row, rows):
    ids = processor.encoder_input_ids
    if rows % len(ids):
        return None
    return {
        "encoder_repetition_penalty": 1 / processor.penalty,
        "encoder_input_ids": ids[row // (rows // len(ids))].tolist(),
    }


def _encoder_ngrams(processor, row, rows):
    if rows % processor.batch_size:
        return None
    ngrams = processor.generated_ngrams[row // (rows // processor.batch_size)]
    # What may not follow: a bias of -inf.
    return {
        "sequence_bias": [
            ((*before, token), -math.inf)
            for before, tokens in ngrams.items()
            for token in dict.fromkeys(tokens)
        ]
    }


def _of_eos(processor, **options):
    return {**options, "eos_token_id": processor.eos_token_id.tolist()}


def _forced_eos(p, *_):
    return {"forced_eos_token_id": p.eos_token_id.tolist(), "max_length": p.max_length}


def _decay(p, *_):
    return _of_eos(p, exponential_decay_length_penalty=(p.regulation_start, p.regulation_factor))


# By class: (processor, row, rows) -> the engine's rules of that row, or None where its rows are others.
_RULES = {
    theirs.SequenceBiasLogitsProcessor: lambda p, *_: {"sequence_bias": p.sequence_bias},
    theirs.NoBadWordsLogitsProcessor: lambda p, *_: {"sequence_bias": p.sequence_bias},
    ours.LogitBias: lambda p, row, rows: p.rules(row, rows),
    ours.FrequencyPenalty: lambda p, row, rows: p.rules(row, rows),
    ours.Dry: lambda p, row, rows: p.rules(row, rows),
    theirs.EncoderRepetitionPenaltyLogitsProcessor: _encoder_repetition,
    theirs.RepetitionPenaltyLogitsProcessor: _repetition,
    theirs.NoRepeatNGramLogitsProcessor: lambda p, *_: {"no_repeat_ngram_size": p.ngram_size},
    theirs.EncoderNoRepeatNGramLogitsProcessor: _encoder_ngrams,
    theirs.MinLengthLogitsProcessor: lambda p, *_: _of_eos(p, min_length=p.min_length),
    theirs.MinNewTokensLengthLogitsProcessor: lambda p, *_: _of_eos(
        p, min_new_tokens=p.min_new_tokens, prompt_length=p.prompt_length_to_skip
    ),
    theirs.PrefixConstrainedLogitsProcessor: lambda p, *_: (
        {"constrained": True} if p._num_beams == 1 else None
    ),
    ours.Allowed: lambda p, *_: {"constrained": True},
    theirs.ForcedBOSTokenLogitsProcessor: lambda p, *_: {
        "forced_bos_token_id": torch.as_tensor(p.bos_token_id).tolist()
    },
    theirs.ForcedEOSTokenLogitsProcessor: _forced_eos,
    theirs.InfNanRemoveLogitsProcessor: lambda p, *_: {"remove_invalid_values": True},
    theirs.ExponentialDecayLengthPenalty: _decay,
    theirs.SuppressTokensLogitsProcessor: lambda p, *_: {"suppress_tokens": p.suppress_tokens.tolist()},
    theirs.SuppressTokensAtBeginLogitsProcessor: lambda p, *_: {
        "begin_suppress_tokens": p.begin_suppress_tokens.tolist(),
        "begin_index": p.begin_index,
    },
}


def _prefix_mask(function):
    """prefix_allowed_tokens_fn as a mask."""

    def mask(ids: torch.Tensor, vocab: int) -> torch.Tensor:
        allowed = torch.zeros(len(ids), vocab, dtype=torch.bool)
        for row, tokens in enumerate(ids):
            chosen = function(row, tokens)
            if len(chosen) == 0:
                raise ValueError(f"prefix_allowed_tokens_fn returned no token for row {row}, expected some")
            allowed[row, chosen] = True
        return torch.from_numpy(mask_words(allowed, vocab))

    return mask


def _criteria(criteria):
    """(maximum length, tokens that end a row, the criteria that are asked after each step)."""
    length, stop, others = None, [], stopping_criteria.StoppingCriteriaList()
    for criterion in criteria:
        if type(criterion) is stopping_criteria.MaxLengthCriteria:
            length = criterion.max_length if length is None else min(length, criterion.max_length)
        elif type(criterion) is stopping_criteria.EosTokenCriteria:
            stop += criterion.eos_token_id.tolist()
        else:
            others.append(criterion)
    if length is None:
        raise _Cannot("no maximum length")
    return math.ceil(length), stop, others


def _other_reason(config, synced, model_kwargs) -> str | None:
    if synced:
        return "synced_gpus"
    for name in ("prefill_chunk_size", "is_assistant"):
        if getattr(config, name, None):
            return name
    for name, value in model_kwargs.items():
        known = name in _MODEL_ARGUMENTS or (name == "logits_to_keep" and value == 1)
        if not known and value is not None and value is not False:
            return f"argument {name}"
    cache = model_kwargs.get(CACHE)
    if (
        cache is None
        or not hasattr(cache, "open")
        or cache.get_seq_length()
        or getattr(cache, "_is_user_defined", False)
    ):
        return "the cache is not a new one" if cache is not None else "use_cache is off"
    mask = model_kwargs.get("attention_mask")
    if mask is not None and (mask.dim() != 2 or bool((mask[:, -1] == 0).any())):
        return "right padding"
    return None


def holds_tokens(model_kwargs: dict) -> bool:
    """Whether the cache among the arguments is not a new one."""
    cache = model_kwargs.get(CACHE)
    return cache is not None and cache.get_seq_length() > 0


def refuse_attentions(name: str, config) -> None:
    """ValueError where attentions or hidden states are to be among the results of a strategy without them."""
    for option in ("output_attentions", "output_hidden_states"):
        if config.return_dict_in_generate and getattr(config, option):
            raise ValueError(f"{name}: {option} is set, expected not: this strategy does not keep them")


def note(model, text: str) -> None:
    """Counts, for ``honed.report``, what a model that is on the engine did not do there."""
    if hasattr(model, "_honed"):
        model._honed.note(text)


def pad_of(config) -> int:
    """The token that finished rows go on with."""
    pad = getattr(config, "_pad_token_tensor", None)
    return 0 if pad is None else int(torch.as_tensor(pad).reshape(-1)[0])


def end_of(max_length: int, length: int, limit: int | None) -> int:
    """Where a text of ``length`` tokens ends: at ``max_length``, or before, at the model's limit, with a
    warning to whoever called ``generate``."""
    if limit is None or max_length <= limit:
        return max_length
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"generate: max_length {max_length} is more than the {limit} positions of the model; "
        f"stops after {limit - length} new tokens",
        stacklevel=level,
    )
    return limit

"""Which of transformers' decoding options the engine's own loop does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from transformers.generation import logits_process, stopping_criteria
from transformers.modeling_outputs import CausalLMOutputWithPast

from honed._lib import torch

# In the order in which transformers applies them, which is the engine's.
_WARPERS = (
    (logits_process.TemperatureLogitsWarper, "temperature"),
    (logits_process.TopKLogitsWarper, "top_k"),
    (logits_process.TopPLogitsWarper, "top_p"),
    (logits_process.MinPLogitsWarper, "min_p"),
)
# The cache among the arguments and results of a model: transformers 5.24 renamed it.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
_MODEL_ARGUMENTS = frozenset(("attention_mask", "position_ids", CACHE, "use_cache"))


@dataclass(frozen=True)
class Plan:
    """What the engine's loop is asked to do."""

    max_length: int
    stop: list[int]
    pad: int
    options: dict = field(default_factory=dict)


def plan_decoding(processors, criteria, config, synced, model_kwargs) -> Plan | str:
    """The plan, or the reason why transformers' own loop has to run.

    Takes what ``generate`` hands to its decoding method: processors and criteria already stand for every
    option of the call, of ``generation_config.json`` and of the defaults, so that one unknown here is seen.
    """
    options = {
        "do_sample": bool(config.do_sample),
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
    }
    last = -1
    for processor in processors:
        place = next((i for i, (kind, _) in enumerate(_WARPERS) if type(processor) is kind), None)
        if place is None or not config.do_sample:
            return type(processor).__name__
        if place <= last or getattr(processor, "min_tokens_to_keep", 1) != 1:
            return f"{type(processor).__name__} in an unusual order or with min_tokens_to_keep"
        if getattr(processor, "filter_value", -math.inf) != -math.inf:
            return f"{type(processor).__name__} with a filter_value"
        last = place
        name = _WARPERS[place][1]
        options[name] = getattr(processor, name)
    if options["top_p"] <= 0:
        return "top_p is not above 0"
    length, stop = None, []
    for criterion in criteria:
        if type(criterion) is stopping_criteria.MaxLengthCriteria:
            length = criterion.max_length if length is None else min(length, criterion.max_length)
        elif type(criterion) is stopping_criteria.EosTokenCriteria:
            stop += criterion.eos_token_id.tolist()
        else:
            return type(criterion).__name__
    if length is None:
        return "no maximum length"
    return _other_reason(config, synced, model_kwargs) or Plan(length, stop, _pad(config), options)


def _other_reason(config, synced, model_kwargs) -> str | None:
    if synced:
        return "synced_gpus"
    if config.return_dict_in_generate:
        return "return_dict_in_generate"
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


def _pad(config) -> int:
    pad = getattr(config, "_pad_token_tensor", None)
    return 0 if pad is None else int(torch.as_tensor(pad).reshape(-1)[0])

"""Our own options of ``generate``: from its arguments or a GenerationConfig to a place among the processors.

transformers refuses arguments that it does not know, and keeps unknown names of a GenerationConfig (so of
``generation_config.json``) as they are: both ways lead here.
"""

from __future__ import annotations

import math
import warnings

from honed.generation import processors as ours
from honed.generation.order import is_filter, is_temperature, place_filter, place_rule

# name: what it is when it is off or not given
RULES = {
    "logit_bias": None,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "penalty_window": 0,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_window": 0,
    "dry_sequence_breakers": (),
    "grammar": None,
}
FILTERS = {
    "dynatemp_range": 0.0,
    "dynatemp_exponent": 1.0,
    "top_n_sigma": 0.0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
    "mirostat": 0,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
}
OPTIONS = {**RULES, **FILTERS}


def take_options(kwargs: dict, generation_config=None) -> dict:
    """Removes honed's options from the arguments of ``generate`` and returns them.

    With a ``generation_config``, they become attributes of it (as ``GenerationConfig(**options)`` has them).
    """
    taken = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
    if generation_config is not None:
        for name, value in taken.items():
            setattr(generation_config, name, value)
    return taken


def options_of(generation_config) -> dict:
    """Every option of ours as the configuration has it, or its default."""
    found = {name: getattr(generation_config, name, None) for name in OPTIONS}
    return {name: OPTIONS[name] if value is None else value for name, value in found.items()}


class TakesOptions:
    """Put before a class that has transformers' ``generate``: it then takes the options above."""

    def _prepare_generation_config(self, generation_config, **kwargs):
        taken = take_options(kwargs)
        if taken.get("grammar") is None:
            taken.pop("grammar", None)
        prepared, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        take_options(taken, prepared)  # a copy for this call: a grammar is never copied nor written
        return prepared, model_kwargs

    def _get_logits_processor(self, generation_config, *args, model_kwargs=None, **kwargs):
        made = super()._get_logits_processor(generation_config, *args, model_kwargs=model_kwargs, **kwargs)
        name = "decoder_attention_mask" if self.config.is_encoder_decoder else "attention_mask"
        return with_ours(made, generation_config, (model_kwargs or {}).get(name))


def with_ours(made, generation_config, attention_mask=None):
    """transformers' processors with ours where they belong among them."""
    o = options_of(generation_config)
    padding = None if attention_mask is None else (attention_mask != 0).int().argmax(dim=1)
    if o["logit_bias"]:
        place_rule(made, ours.LogitBias({"logit_bias": _biases(o["logit_bias"])}))
    if o["presence_penalty"] or o["frequency_penalty"]:
        names = ("presence_penalty", "frequency_penalty", "penalty_window")
        place_rule(made, ours.FrequencyPenalty({name: o[name] for name in names}, padding))
    if o["dry_multiplier"]:
        names = [name for name in RULES if name.startswith("dry_")]
        place_rule(made, ours.Dry({name: o[name] for name in names}, padding))
    if o["grammar"] is not None:
        place_rule(made, ours.Allowed(o["grammar"]))
    if not generation_config.do_sample:
        unread = [name for name in FILTERS if o[name] != FILTERS[name]]
        if unread:
            warnings.warn(
                f"generate: {', '.join(unread)} without do_sample=True: it has no effect", stacklevel=2
            )
        return made
    if o["dynatemp_range"]:
        temperature = generation_config.temperature
        made[:] = [each for each in made if not is_temperature(each)]
        place_filter(
            made,
            ours.DynamicTemperature(
                1.0 if temperature is None else temperature, o["dynatemp_range"], o["dynatemp_exponent"]
            ),
        )
    if o["mirostat"]:
        if (generation_config.num_beams or 1) > 1:
            raise ValueError("generate: mirostat with num_beams, expected one beam: it follows one text")
        made[:] = [each for each in made if not is_filter(each)]
        place_filter(made, ours.Mirostat(o["mirostat"], o["mirostat_tau"], o["mirostat_eta"]))
        return made
    if o["top_n_sigma"]:
        place_filter(made, ours.TopNSigma(o["top_n_sigma"]))
    if o["xtc_probability"]:
        place_filter(made, ours.Xtc(o["xtc_probability"], o["xtc_threshold"]))
    return made


def _biases(given) -> dict:
    """Tokens and what is added to them; from a file, whose keys are texts, too."""
    try:
        found = {int(token): float(bias) for token, bias in dict(given).items()}
    except (TypeError, ValueError):
        raise TypeError(
            f"generate: logit_bias is {given!r}, expected a dict from tokens to numbers"
        ) from None
    for token, bias in found.items():
        if math.isnan(bias):
            raise ValueError(f"generate: logit_bias of token {token} is nan, expected a number")
    return found

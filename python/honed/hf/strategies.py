"""generate() of a honed model: transformers' own, and the strategies that it dropped."""

from __future__ import annotations

import functools
import importlib
import inspect

from transformers import GenerationMixin

from honed.generation.options import TakesOptions

# A strategy is the function honed.generation.<name>.<name>. The options that may ask for one:
_OPTIONS = (
    "penalty_alpha",
    "dola_layers",
    "num_beam_groups",
    "constraints",
    "force_words_ids",
    "guidance_scale",
)


class HonedGeneration(TakesOptions):
    """Put before a model class that can generate. Copies and pickles name the class that it was made of."""

    _honed_base: type

    def __reduce_ex__(self, protocol):
        # The class is made at run time: copies and pickles name the original one.
        return _restore, (self._honed_base,), self.__dict__

    def _extract_generation_mode_kwargs(self, custom_generate, *others):
        # transformers gives a callable no streamer and no tokenizer; ours take what its own methods take.
        if not getattr(custom_generate, "__module__", "").startswith("honed.generation."):
            return super()._extract_generation_mode_kwargs(custom_generate, *others)
        found = super()._extract_generation_mode_kwargs(None, *others)
        if "streamer" in found and "streamer" not in inspect.signature(custom_generate).parameters:
            raise ValueError(f"generate: streamer is set, expected none with {custom_generate.__name__}")
        return {name: value for name, value in found.items() if not name.startswith("assistant_")}

    def _assisted_decoding(self, input_ids, **options):
        from honed.generation.assisted import assisted_decoding

        return assisted_decoding(self, input_ids, super()._assisted_decoding, **options)


def made_class(mixin: type, base: type, **body) -> type:
    """The subclass of ``base`` with ``mixin`` before it: same name, same module, same signatures."""
    return type(
        base.__name__,
        (mixin, base),
        {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__doc__": base.__doc__,
            "_honed_base": base,
            "generate": _generate(base.generate),
            **body,
        },
    )


@functools.cache
def generating_class(base: type) -> type:
    """The class of a model that was honed by layers."""
    return made_class(HonedGeneration, base)


def original_class(model) -> type:
    """The class that the model had before ``hone``."""
    return getattr(type(model), "_honed_base", type(model))


def generates(model) -> bool:
    return isinstance(model, GenerationMixin) and not isinstance(model, HonedGeneration)


def _restore(base):
    made = generating_class(base)
    return made.__new__(made)


def _generate(original):
    @functools.wraps(original)
    def generate(self, *args, **kwargs):
        # A model with a generate of its own (speech, music) gives these options its own meaning.
        if original is GenerationMixin.generate and kwargs.get("custom_generate") is None:
            config = kwargs.get("generation_config", args[1] if len(args) > 1 else None)
            strategy = _strategy(lambda name: _value(name, kwargs, config, self.generation_config))
            if strategy is not None:
                kwargs["custom_generate"] = strategy
        return original(self, *args, **kwargs)

    return generate


def _value(name, *places):
    """An option as ``generate`` resolves it: of the call, of its configuration, of the model's."""
    for place in places:
        value = place.get(name) if isinstance(place, dict) else getattr(place, name, None)
        if value is not None:
            return value
    return None


def _strategy(value):
    """The callable for what the options ask of us; None: transformers has it itself."""
    if all(value(name) is None for name in _OPTIONS):
        return None
    beams, sample = value("num_beams") or 1, bool(value("do_sample"))
    found = None
    if value("constraints") is not None or value("force_words_ids") is not None:
        found = "constrained_beam_search"
    elif value("num_beam_groups") not in (None, 1):
        found = "group_beam_search"
    elif beams > 1:
        pass
    elif value("dola_layers") is not None:
        found = "dola"
    elif not sample and (value("penalty_alpha") or 0) > 0 and _top_k(value) > 1:
        found = "contrastive_search"
    elif (value("guidance_scale") or 1) != 1:
        found = "guidance"
    if found is None:
        return None
    return getattr(importlib.import_module(f"honed.generation.{found}"), found)


def _top_k(value) -> int:
    found = value("top_k")
    return 50 if found is None else found  # transformers' default

"""The class of a honed model: its own, with the engine put before its forward, cache and decode loop."""

from __future__ import annotations

import functools
import inspect
import math

import torch
from transformers import modeling_outputs

from honed.generation.beam_search import beam_search, why_not_beams
from honed.generation.decoding import CACHE, plan_decoding
from honed.generation.engine_loop import decode
from honed.hf.cache import HonedCache
from honed.hf.strategies import HonedGeneration, made_class

_classes: dict[type, type] = {}

# Arguments of forward that the engine serves, and those that only the loss function reads.
_INPUTS = {"input_ids", "attention_mask", "position_ids", "cache_position", CACHE, "labels"}
_SERVED = _INPUTS | {"use_cache", "logits_to_keep", "return_dict"}
_LOSS = frozenset(("num_items_in_batch", "shift_labels", "ignore_index"))


def honed_class(base: type) -> type:
    """The subclass of ``base`` that runs on the engine: same name, same module, same signatures."""
    if base not in _classes:
        original = base.forward
        names = tuple(inspect.signature(original).parameters)[1:]

        @functools.wraps(original)
        def forward(self, *args, **kwargs):
            return _forward(self, original, names, args, kwargs)

        _classes[base] = made_class(HonedModel, base, forward=forward)
    return _classes[base]


def _restore(base: type):
    made = honed_class(base)
    return made.__new__(made)


class HonedModel(HonedGeneration):
    """Put before a transformers model class. Keeps one private attribute, ``_honed``, and no weights."""

    def __reduce_ex__(self, protocol):
        # The class is made at run time: copies and pickles name the original one.
        return _restore, (self._honed_base,), self.__dict__

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        handle = self._honed
        length = math.ceil(generation_config.max_length)
        ours = (
            model_kwargs.get(CACHE) is None
            and generation_config.use_cache is not False
            and generation_config.cache_implementation in (None, "dynamic")
            and why_torch(self, {}) is None
            and (not handle.binding.limit_is_window or length <= handle.binding.limit)
            and _beyond_limit(handle, model_kwargs, length) is None
        )
        if not ours:
            return super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        model_kwargs[CACHE] = handle.new_cache(self, min(length, handle.binding.limit))
        return None

    def _sample(
        self,
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        synced_gpus=False,
        streamer=None,
        **model_kwargs,
    ):
        # transformers' generate() has resolved every option by now: what arrives here is what it would do.
        model_kwargs.pop("tokenizer", None)  # of stop_strings, which are among the criteria
        plan = plan_decoding(
            logits_processor, stopping_criteria, generation_config, synced_gpus, model_kwargs, len(input_ids)
        )
        plan = why_not_decode(self, input_ids, model_kwargs, generation_config.max_length) or plan
        if isinstance(plan, str):
            self._honed.note(f"decode loop: {plan}")
            return super()._sample(
                input_ids,
                logits_processor=logits_processor,
                stopping_criteria=stopping_criteria,
                generation_config=generation_config,
                synced_gpus=synced_gpus,
                streamer=streamer,
                **model_kwargs,
            )
        return decode(
            self,
            input_ids,
            plan,
            streamer,
            model_kwargs[CACHE],
            _whole(model_kwargs.get("position_ids"), input_ids),
            _mask(model_kwargs.get("attention_mask")),
        )

    def _beam_search(
        self,
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        synced_gpus=False,
        **model_kwargs,
    ):
        reason = why_not_beams(self, input_ids, generation_config, synced_gpus, model_kwargs)
        search = beam_search if reason is None else super()._beam_search.__func__
        if reason is not None:
            self._honed.note(f"beam search: {reason}")
        return search(
            self,
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            synced_gpus=synced_gpus,
            **model_kwargs,
        )


def why_torch(model, given: dict) -> str | None:
    """The reason why a call with these arguments runs on torch, or None."""
    handle = model._honed
    if torch.compiler.is_compiling():
        return "torch.compile is tracing"
    if model.training:
        return "the model is in training mode"
    if torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters()):
        return "gradients are on (call under torch.no_grad() or torch.inference_mode())"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    past = given.get(CACHE)
    ids = given.get("input_ids")
    step = (
        isinstance(past, HonedCache) and past.get_seq_length() > 0 and ids is not None and ids.shape[1] == 1
    )
    if not handle.ready(model, thorough=not step):
        return handle.reason
    reason = _odd_argument(model, given)
    if reason:
        return reason
    if any(handle.binding.hooks) and not _only_capturing(handle.binding.hooks):
        return "a submodule has a forward hook"
    if ids is not None and (past is None or past.get_seq_length() == 0):
        # Once the engine has filled a cache, torch cannot go on from it.
        return _too_long(handle.binding, ids.shape[1], given.get("position_ids"))
    return None


def why_not_decode(model, input_ids, model_kwargs: dict, max_length: int | None) -> str | None:
    """The reason why the engine cannot read what ``generate`` prepared, up to ``max_length``, or None."""
    given = {name: model_kwargs.get(name) for name in ("attention_mask", "position_ids")}
    reason = why_torch(model, {"input_ids": input_ids, "use_cache": True, **given})
    if reason is None and max_length is not None:
        reason = _beyond_limit(model._honed, model_kwargs, max_length)
    return reason or _watched(model)


def _too_long(binding, length: int, positions) -> str | None:
    limit = binding.limit
    if length > limit:
        kind = f"sliding window of {limit}" if binding.limit_is_window else f"{limit} positions of the model"
        return f"{length} tokens are more than the {kind}"
    if positions is not None and int(positions.max()) >= limit:
        return f"position_ids goes up to {int(positions.max())}, the engine to {limit - 1}"
    return None


def _beyond_limit(handle, model_kwargs, max_length: int) -> str | None:
    """Why ``generate`` would pass the engine's limit halfway, where torch cannot take over any more.

    Not so for a prompt that starts at position 0 and leaves room: the engine stops at the limit and warns.
    """
    limit = handle.binding.limit
    positions = model_kwargs.get("position_ids")  # generate() has made them where the caller gave none
    if positions is None or not positions.numel():
        return None
    length, highest = positions.shape[-1], int(positions.max())
    if limit <= length < max_length:
        return f"a prompt of {length} tokens leaves no room below the limit of {limit}"
    last = highest + max_length - length
    if highest >= length and last > limit:
        return f"position_ids would go up to {last - 1}, the engine to {limit - 1}"
    return None


def _odd_argument(model, given) -> str | None:
    for name in ("output_attentions", "output_hidden_states"):
        asked = given.get(name)
        if getattr(model.config, name, False) if asked is None else asked:
            return name
    for name, value in given.items():
        if value is None or value is False or name in _SERVED:
            continue
        if not (name in _LOSS and given.get("labels") is not None):
            return f"argument {name}"
    ids = given.get("input_ids")
    if not given:
        return None
    if type(ids) is not torch.Tensor or ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32):
        return "input_ids is not a two-dimensional tensor of whole numbers"
    if ids.device.type != "cpu" or 0 in ids.shape:
        return f"input_ids has shape {list(ids.shape)} on {ids.device}"
    past = given.get(CACHE)
    if past is not None and not isinstance(past, HonedCache):
        return f"{CACHE} is a {type(past).__name__}"
    if past is not None and past.held_by_torch:
        return f"{CACHE} was filled by torch"
    keep = given.get("logits_to_keep", 0)
    if type(keep) is not int:
        return "logits_to_keep is a tensor"
    if keep < 0:
        return "logits_to_keep is negative"
    length = ids.shape[1] + (past.get_seq_length() if past is not None else 0)
    mask = given.get("attention_mask")
    if mask is not None and (
        not isinstance(mask, torch.Tensor) or tuple(mask.shape) != (ids.shape[0], length)
    ):
        shape = list(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
        return f"attention_mask is {shape}, not {[ids.shape[0], length]}"
    positions = given.get("position_ids")
    if positions is not None:
        if (
            positions.dim() != 2
            or positions.shape[0] not in (1, ids.shape[0])
            or positions.shape[1] != ids.shape[1]
        ):
            return f"position_ids has shape {list(positions.shape)}"
        alone = past is None and mask is None and not _use_cache(model, given)
        if alone and not bool((positions.diff(dim=-1) == 1).all()):
            return "position_ids packs several sequences"
        negative = positions < 0
        if bool(negative.any()) and (
            mask is None or bool((negative & (mask[:, -ids.shape[1] :] != 0)).any())
        ):
            return "position_ids is negative at a token that attention_mask keeps"
    return None


def _only_capturing(hooks) -> bool:
    """transformers' own hooks for output_hidden_states stay installed and do nothing by themselves."""
    return all(
        getattr(hook, "__module__", "") == "transformers.utils.output_capturing"
        for some in hooks
        for hook in some.values()
    )


def _watched(model) -> str | None:
    """Why the decode loop has to call the model for every token: somebody listens at its own forward."""
    if "forward" in model.__dict__:
        return "the model's forward was replaced"
    if model._forward_hooks or model._forward_pre_hooks:
        return "the model has a forward hook"
    return None


def _use_cache(model, given) -> bool:
    asked = given.get("use_cache")
    return bool(getattr(model.config, "use_cache", False) if asked is None else asked)


def _forward(model, original, names, args, kwargs):
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if CACHE not in given and "past_key_values" in given:  # the old name is taken for a while
        given[CACHE] = given.pop("past_key_values")
    handle = model._honed
    reason = why_torch(model, given) if given.get("input_ids") is not None else "no input_ids"
    if reason is not None:
        handle.note(reason)
        return original(model, *args, **kwargs)
    handle.calls += 1
    ids = given["input_ids"]
    cache = given.get(CACHE)
    kept = cache is not None or _use_cache(model, given)
    if cache is None:
        cache = handle.new_cache(model)
    rows, length = ids.shape
    native = cache.open(handle, rows, length)
    positions = given.get("position_ids")
    if positions is None and given.get("cache_position") is not None:
        positions = given["cache_position"][None]
    logits = handle.engine.forward(
        native,
        ids.to(torch.int64).contiguous(),
        _whole(positions, ids),
        _mask(given.get("attention_mask")),
        min(given.get("logits_to_keep") or 0, length),
    ).to(model.get_submodule(handle.binding.family.head).weight.dtype)
    loss = None
    if given.get("labels") is not None:
        extra = {name: value for name, value in given.items() if name in _LOSS and value is not None}
        loss = model.loss_function(logits, given["labels"], vocab_size=model.config.vocab_size, **extra)
    output = getattr(modeling_outputs, handle.binding.family.output)(
        loss=loss, logits=logits, **{CACHE: cache if kept else None}
    )
    as_dict = given.get("return_dict")
    if as_dict is None:
        as_dict = model.config.return_dict
    return output if as_dict else output.to_tuple()


def _whole(positions, ids):
    if positions is None:
        return None
    # Below zero only at masked tokens (``mask.cumsum(-1) - 1``), where any position will do.
    return positions.to(torch.int64).clamp(min=0).expand(ids.shape).contiguous()


def _mask(mask):
    if mask is None:
        return None
    real = mask if mask.dtype is torch.bool else mask != 0
    return None if bool(real.all()) else real.contiguous()

"""A model and its cache, one forward pass at a time: what every decoding strategy runs on.

``stepper_for`` takes the engine where the model is honed and nothing speaks against it, else the model's
own forward, which is also how encoder-decoder models run.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from honed._lib import _core
from honed.generation.decoding import CACHE, note

# ``tokenizer`` is for the stopping criteria: generate() hands it on to every decoding method.
_ARGUMENTS = frozenset(("attention_mask", "position_ids", CACHE, "use_cache", "logits_to_keep", "tokenizer"))


class Stepper:
    """What the strategies call. Rows are sequences; all have read ``length`` tokens, padding included."""

    length: int  # tokens read, those that a given cache held included
    batch: int  # rows now
    limit: int | None  # the longest length that works, where there is one

    def __call__(
        self, ids: torch.Tensor, keep: int = 1, hidden: bool = False, exits: list[int] | None = None
    ):
        """Reads ``ids`` (B, T) after what was read before.

        Returns float32 logits (B, keep, V) of the last ``keep`` positions and, with ``hidden``, also the last
        hidden states (B, T, C), as the model's head takes them. With ``exits``, indices of transformers'
        ``hidden_states``, it returns instead what the head makes of those: (n, B, keep, V).
        """
        raise NotImplementedError

    def reorder(self, rows: torch.Tensor) -> None:
        """Row b goes on from ``rows[b]``; there may be more or fewer rows than now."""
        raise NotImplementedError

    def crop(self, length: int) -> None:
        """Forgets all tokens but the first ``length``."""
        raise NotImplementedError

    @property
    def cache(self):
        """The cache, as ``generate`` returns it; None where there is none."""
        raise NotImplementedError


def stepper_for(model, input_ids: torch.Tensor, model_kwargs: dict, max_length: int | None = None) -> Stepper:
    """A stepper for what ``generate`` hands to a decoding method.

    ``model_kwargs`` are for the rows of ``input_ids``; feed it ``input_ids`` first (without the tokens that
    a given cache holds). ``max_length``: how far the strategy may go, where it knows. A honed model notes
    the reason why it does not run on the engine.
    """
    reason = why_not_engine(model, input_ids, model_kwargs, max_length)
    if reason is None:
        return EngineStepper(model, input_ids, model_kwargs)
    note(model, f"decoding: {reason}")
    return ModelStepper(model, model_kwargs)


def why_not_engine(model, input_ids, model_kwargs: dict, max_length: int | None = None) -> str | None:
    """The reason why the model's own forward has to run, or None."""
    from honed.hf.model import HonedModel, why_not_decode  # they import us

    if not isinstance(model, HonedModel):
        return "the model is not honed"
    reason = why_not_decode(model, input_ids, model_kwargs, max_length)
    if reason is not None:
        return reason
    for name, value in model_kwargs.items():
        if name not in _ARGUMENTS and value is not None and value is not False:
            return f"argument {name}"
    if model_kwargs.get("use_cache") is False:
        return "use_cache is off"
    cache = model_kwargs.get(CACHE)
    if cache is not None and (not hasattr(cache, "open") or cache.held_by_torch):
        return "the cache is not the engine's"
    return None


class EngineStepper(Stepper):
    """On the engine: one native call a forward."""

    def __init__(self, model, input_ids: torch.Tensor, model_kwargs: dict):
        handle = model._honed
        self._handle = handle
        self._cache = model_kwargs.get(CACHE)
        if self._cache is None:
            self._cache = handle.new_cache(model)
        self.length, self.batch = self._cache.get_seq_length(), len(input_ids)
        self.limit = handle.binding.limit
        mask, positions = model_kwargs.get("attention_mask"), model_kwargs.get("position_ids")
        # Both are kept for all tokens, or not at all where they say nothing.
        self._mask = None if mask is None or bool(mask.bool().all()) else mask.bool()
        if positions is None:
            positions = None if self._mask is None else (self._mask.long().cumsum(-1) - 1).clamp(min=0)
        else:
            positions = positions.to(torch.int64).clamp(min=0).expand(self.batch, -1)
            positions = self._whole_length(positions)
        plain = positions is None or bool((positions == torch.arange(positions.shape[1])).all())
        self._positions = None if plain else positions

    def _whole_length(self, positions):
        """Positions of all tokens, where only those of the tokens that no cache holds were given."""
        missing = self.length - positions.shape[1]
        if self.length == 0 or missing < 0:
            return positions
        before = positions[:, :1] - torch.arange(self.length, 0, -1)
        return torch.cat((before.clamp(min=0), positions), dim=1)

    def __call__(self, ids, keep=1, hidden=False, exits=None):
        rows, count = ids.shape
        end = self.length + count
        self._handle.calls += 1
        self._grow(end)
        native = self._cache.open(self._handle, rows, end)
        last = self._handle.binding.description["num_layers"]
        found = self._handle.engine.forward(
            native,
            ids.to(torch.int64).contiguous(),
            None if self._positions is None else self._positions[:, self.length : end].contiguous(),
            None if self._mask is None else self._mask[:, :end].contiguous(),
            keep,
            [last] if hidden else exits or [],
            0 if hidden else keep,
        )
        self.length, self.batch = end, rows
        if hidden:
            return found[0], found[1][0]
        if exits:
            return found[0], _core.linear(found[1], self._handle.packs["head", None])
        return found

    def _grow(self, end: int) -> None:
        if self._mask is not None and (missing := end - self._mask.shape[1]) > 0:
            self._mask = torch.nn.functional.pad(self._mask, (0, missing), value=True)
        if self._positions is not None and (missing := end - self._positions.shape[1]) > 0:
            after = self._positions[:, -1:] + torch.arange(1, missing + 1)
            self._positions = torch.cat((self._positions, after), dim=1)

    def reorder(self, rows):
        rows = rows.to("cpu", torch.int64)
        self._cache.reorder_cache(rows)
        if self._mask is not None:
            self._mask = self._mask[rows]
        if self._positions is not None:
            self._positions = self._positions[rows]
        self.batch = len(rows)

    def crop(self, length):
        if length < self.length:
            self._cache.crop(length - self.length)
            self.length = length
            if self._mask is not None:
                self._mask = self._mask[:, :length]
            if self._positions is not None:
                self._positions = self._positions[:, :length]

    @property
    def cache(self):
        return self._cache


class ModelStepper(Stepper):
    """On the model's own forward, prepared as transformers' loops prepare it."""

    limit = None

    def __init__(self, model, model_kwargs: dict):
        self._model = model
        self._kwargs = dict(model_kwargs)
        self._decodes = bool(model.config.is_encoder_decoder)  # beside an encoder
        self._names = (
            ("decoder_attention_mask", "decoder_position_ids", "decoder_token_type_ids")
            if self._decodes
            else ("attention_mask", "position_ids", "token_type_ids")
        )
        self._cached = self._kwargs.get("use_cache") is not False
        held = self._kwargs.get(CACHE)
        self.length = held.get_seq_length() if self._cached and isinstance(held, Cache) else 0
        self._held = self.length  # before our first token
        self.batch = 0
        self._ids = None
        self._outputs: ModelOutput | None = None

    def __call__(self, ids, keep=1, hidden=False, exits=None):
        model, count = self._model, ids.shape[1]
        first = self._ids is None
        if first:
            self._ids = ids
        else:
            self._ids = torch.cat((self._ids, ids), dim=1)
            self._kwargs = model._update_model_kwargs_for_generation(
                self._outputs, self._kwargs, is_encoder_decoder=self._decodes, num_new_tokens=count
            )
        if model._supports_logits_to_keep():
            self._kwargs["logits_to_keep"] = keep
        inputs = model.prepare_inputs_for_generation(
            self._ids,
            next_sequence_length=count if self._cached and not first else None,
            is_first_iteration=first,
            **self._kwargs,
        )
        if hidden or exits:
            inputs["output_hidden_states"] = True
        outputs = model(**inputs, return_dict=True)
        logits = outputs.logits[:, -keep:].float()
        # What the bookkeeping reads; logits and states are not held until the next token.
        self._outputs = ModelOutput({k: v for k, v in outputs.items() if isinstance(v, Cache)})
        for name in self._outputs:
            self._kwargs[name] = outputs[name]
        self.length += count
        self.batch = len(ids)
        if not (hidden or exits):
            return logits
        states = outputs.decoder_hidden_states if self._decodes else outputs.hidden_states
        if hidden:
            return logits, states[-1][:, -count:].float()
        early = torch.stack([states[index][:, -keep:] for index in exits])
        return logits, model.get_output_embeddings()(early).float()

    def reorder(self, rows):
        batch = self.batch
        self._ids = self._ids[rows]
        for name in list(self._kwargs):
            value = self._kwargs[name]
            if isinstance(value, Cache):
                if hasattr(self._model, "_reorder_cache"):
                    value = self._model._reorder_cache(value, rows)
                else:
                    value.reorder_cache(rows)
                self._kwargs[name] = value
                if name in self._outputs:
                    self._outputs[name] = value
            else:
                self._kwargs[name] = take_rows(value, rows, batch)
        self.batch = len(rows)

    def crop(self, length):
        if length >= self.length:
            return
        for value in self._kwargs.values():
            if isinstance(value, Cache):
                value.crop(length - self.length)
        self._ids = self._ids[:, : length - self._held]
        for name in self._names:
            if self._kwargs.get(name) is not None:
                self._kwargs[name] = self._kwargs[name][..., :length]
        self.length = length

    @property
    def cache(self):
        return self._kwargs.get(CACHE)


def take_rows(value, rows, batch: int):
    """``value`` with its rows chosen, where it has ``batch`` of them; model outputs entry by entry."""
    if isinstance(value, torch.Tensor) and value.dim() > 0:
        if value.shape[0] == batch:
            return value[rows]
        return value[:, rows] if value.dim() == 3 and value.shape[1] == batch else value
    if isinstance(value, ModelOutput):
        return type(value)(**{name: take_rows(entry, rows, batch) for name, entry in value.items()})
    if isinstance(value, tuple | list):
        return type(value)(take_rows(entry, rows, batch) for entry in value)
    return value

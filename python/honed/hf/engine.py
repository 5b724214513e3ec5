"""The engine of one honed model: built on first use, packed anew where weights changed, dropped by copies."""

from __future__ import annotations

import threading
from collections import Counter

from honed._lib import _core
from honed.hf.binding import Binding, bind
from honed.hf.cache import HonedCache
from honed.hf.families import CACHE_DTYPES, Unsupported, storage_for
from honed.hf.importance import input_importance

# Inputs a scale. 64 costs 22 % perplexity in int4 where 32 costs 0.5 % (SmolLM2-135M), and is no faster.
GROUP = 32


class Handle:
    """What a honed model carries: its options, its counters and, once built, its engine.

    ``deepcopy`` and ``pickle`` keep the options; the copy packs its own weights when it first runs.
    """

    def __init__(self, weights: str | None):
        self.weights = weights
        self.reason: str | None = None  # why there is no engine
        self.calls = 0  # forward passes and decode loops on the engine
        self.fallbacks: Counter[str] = Counter()  # those on torch, by reason
        self.binding: Binding | None = None
        self.engine = None
        self.packs: dict = {}  # (key, layer) -> (PackedWeights, kind)
        self._lock = threading.RLock()
        self._signatures: dict = {}  # (key, layer) -> fingerprints of the tensors packed
        self._held: list = []  # (dict of a module's parameters, name, the parameter that was packed)
        self._parameters: list = []
        self._versions: list = []

    def __reduce__(self):
        return Handle, (self.weights,)

    def __deepcopy__(self, memo):
        return Handle(self.weights)

    def note(self, reason: str) -> None:
        self.fallbacks[reason] += 1

    def ready(self, model, thorough: bool) -> bool:
        """True when the engine holds the model's present weights; packs what changed. Else see ``reason``.

        A decode step looks at each parameter's identity and version counter (in-place edits, optimizers,
        ``load_state_dict``); ``thorough``, for every prompt, also at the structure, at each parameter's
        memory, and at a sample of its values (edits through ``.data`` leave no other trace).
        """
        if self.engine is not None and not thorough:
            try:
                fresh = [p._version for p in self._parameters] == self._versions and all(
                    slots.get(name) is p for slots, name, p in self._held
                )
            except RuntimeError:  # inference tensors count no versions
                fresh = False
            if fresh:
                return True
        with self._lock:
            try:
                self._refresh(model)
            except Unsupported as error:
                self.reason = str(error)
                self.drop()
                return False
        self.reason = None
        return True

    def drop(self) -> None:
        """Frees the engine and its packed weights."""
        self.engine = self.binding = None
        self.packs, self._signatures = {}, {}
        self._held, self._parameters = [], []

    def new_cache(self, model, capacity: int = 0) -> HonedCache:
        return HonedCache(model.config, CACHE_DTYPES[self.weights], capacity)

    def _refresh(self, model) -> None:
        if self.binding is not None and not _unmoved(self.binding):
            self.drop()
        if self.engine is not None:
            changed = self._changed(self.binding)
            if not changed:
                return
        binding = bind(model)  # again when values changed: types, devices and sizes may have, too
        if self.engine is None:
            changed = {(part.key, part.layer) for part in binding.parts}
        packed = [part for part in binding.parts if part.packed and (part.key, part.layer) in changed]
        kinds = [storage_for(part.key, part.weights, self.weights) for part in packed]
        rounded = [part for part, kind in zip(packed, kinds, strict=True) if kind == "int4"]
        importance = input_importance(model, [part.modules[0] for part in rounded], binding.limit)
        for part, kind in zip(packed, kinds, strict=True):
            self._pack(part, kind, importance.get(part.modules[0]))
        self.engine, self.binding = self._build(binding), binding
        self._signatures = _signatures(binding)
        self._held = [(slots, name, slots[name]) for slots, name in binding.slots]
        self._parameters = [p for _, _, p in self._held if p is not None]
        self._versions = [_version(p) for p in self._parameters]

    def _changed(self, binding) -> set:
        now = _signatures(binding)
        return {key for key, value in now.items() if value != self._signatures[key]}

    def _pack(self, part, kind, importance) -> None:
        weights = part.weights
        woven = part.key == "up" and len(weights) == 2
        packed = _core.pack_weight(weights, kind, GROUP, part.biases, woven, importance)
        self.packs[part.key, part.layer] = (packed, kind)

    def _build(self, binding):
        layers = [{} for _ in range(binding.description["num_layers"])]
        weights = {"position_embedding": None, "rope_cos": None, "rope_sin": None, "layers": layers}
        if binding.rope is not None:
            weights["rope_cos"], weights["rope_sin"] = binding.rope
        for part in binding.parts:
            target = weights if part.layer is None else layers[part.layer]
            if part.packed:
                target[part.key] = self.packs[part.key, part.layer][0]
                continue
            module = part.modules[0]
            target[part.key] = module.weight.detach()
            if part.key.endswith("norm") and part.key not in ("q_norm", "k_norm"):
                bias = getattr(module, "bias", None)
                target[part.key + "_bias"] = None if bias is None else bias.detach()
        for layer in layers:
            layer.setdefault("q_norm", None)
            layer.setdefault("k_norm", None)
        try:
            return _core.Engine(binding.description, weights)
        except ValueError as error:
            raise Unsupported(str(error)) from error


def _unmoved(binding: Binding) -> bool:
    """The modules are the ones that were read, and compute what they did."""
    return (
        all(tuple(children.values()) == saved for children, saved in binding.links)
        and all(name in slots for slots, name in binding.slots)
        and not any("forward" in attributes for attributes in binding.attributes)
        and all(attributes.get(name) == value for attributes, name, value in binding.settings)
    )


def _version(tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _signatures(binding) -> dict:
    """Fingerprints of every part's parameters: who they are, where they lie, and a sample of their values."""
    return {
        (part.key, part.layer): [
            _core.fingerprint(p)
            for module in part.modules
            for p in module._parameters.values()
            if p is not None
        ]
        for part in binding.parts
    }

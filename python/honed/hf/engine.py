"""The engine of one honed model: built on first use, packed anew where weights changed, dropped by copies."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter

from honed._lib import _core
from honed.hf.binding import Binding, bind
from honed.hf.cache import HonedCache
from honed.hf.families import CACHE_DTYPES, Unsupported, storage_for
from honed.hf.importance import input_importance
from honed.hf.originals import MapWatch, Originals
from honed.hf.packed_file import cached, is_gated

# Inputs a scale. 64 costs 22 % perplexity in int4 where 32 costs 0.5 % (SmolLM2-135M), and is no faster.
GROUP = 32


class Handle:
    """What a honed model carries: its options, its counters and, once built, its engine.

    ``deepcopy`` and ``pickle`` keep the options; the copy packs its own weights when it first runs.
    """

    def __init__(self, weights: str | None, packed_cache: str | None = None, free_originals: bool = False):
        self.weights = weights
        self.packed_cache = packed_cache
        self.free_originals = free_originals
        self.cache_note = ""  # what became of the packed cache
        self.reason: str | None = None  # why there is no engine
        self.calls = 0  # forward passes and decode loops on the engine
        self.fallbacks: Counter[str] = Counter()  # those on torch, by reason
        self.binding: Binding | None = None
        self.engine = None
        self.packs: dict = {}  # (key, layer) -> PackedWeight; tied parts have the same one
        self._lock = threading.RLock()
        self._signatures: dict = {}  # (key, layer) -> fingerprints of the tensors packed
        self._watch: MapWatch | None = None  # of parameters on files, in place of their values
        self._held: list = []  # (dict of a module's parameters, name, the parameter that was packed)
        self._parameters: list = []
        self._versions: list = []
        _handles.add(self)

    def __reduce__(self):
        return Handle, (self.weights, self.packed_cache, self.free_originals)

    def __deepcopy__(self, memo):
        return Handle(*self.__reduce__()[1])

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
        self.packs, self._signatures, self._watch = {}, {}, None
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
        first = self.engine is None
        if first:
            changed = {(part.key, part.layer) for part in binding.parts}
        touched = [part for part in binding.parts if (part.key, part.layer) in changed]
        originals = Originals(model, _parameters(touched)) if self.free_originals else None
        if first and self.packed_cache is not None:
            self.packs, self.cache_note = cached(
                self.packed_cache,
                binding,
                self.weights,
                GROUP,
                lambda: self._pack(model, binding, touched, originals),
            )
        else:
            self.packs |= self._pack(model, binding, touched, originals)
        if originals:
            originals.release(_parameters(touched))
            originals.finish()
        self.engine, self.binding = self._build(binding), binding
        self._watch = MapWatch(binding.parts) if self.free_originals else None
        self._signatures = self._sign(binding)
        self._held = [(slots, name, slots[name]) for slots, name in binding.slots]
        self._parameters = [p for _, _, p in self._held if p is not None]
        self._versions = [_version(p) for p in self._parameters]

    def _changed(self, binding) -> set:
        now = self._sign(binding)
        found = {key for key, value in now.items() if value != self._signatures[key]}
        return found | (self._watch.edited() if self._watch else set())

    def _sign(self, binding) -> dict:
        """Who the parameters of every part are, where they lie, and a sample of their values (but for those
        on files: looking would bring them back into memory)."""
        on_file = self._watch.addresses if self._watch else ()

        def mark(p):
            if p.untyped_storage().data_ptr() in on_file:
                return id(p), p.data_ptr(), _version(p), p.dtype
            return _core.fingerprint(p)

        return {
            (part.key, part.layer): [
                mark(p) for module in part.modules for p in module._parameters.values() if p is not None
            ]
            for part in binding.parts
        }

    def _pack(self, model, binding, parts, originals) -> dict:
        """Packs parts, tied ones once; each one's originals go as soon as it is packed."""
        parts = [part for part in parts if part.packed]
        kinds = [storage_for(part.key, self.weights) for part in parts]
        rounded = [part for part, kind in zip(parts, kinds, strict=True) if kind == "int4"]
        importance = input_importance(model, [part.modules[0] for part in rounded], binding.limit)
        packs, made = {}, {}
        for part, kind in zip(parts, kinds, strict=True):
            tied = (kind, is_gated(part), *(id(p) for p in _parameters([part])))
            if tied not in made:
                measure = importance.get(part.modules[0])
                made[tied] = _core.pack_weight(
                    part.weights, kind, GROUP, part.biases, is_gated(part), measure
                )
            packs[part.key, part.layer] = made[tied]
            if originals:
                originals.release(_parameters([part]))
        return packs

    def _build(self, binding):
        layers = [{} for _ in range(binding.description["num_layers"])]
        weights = {"position_embedding": None, "rope_cos": None, "rope_sin": None, "layers": layers}
        if binding.rope is not None:
            weights["rope_cos"], weights["rope_sin"] = binding.rope
        for part in binding.parts:
            target = weights if part.layer is None else layers[part.layer]
            if part.packed:
                target[part.key] = self.packs[part.key, part.layer]
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


_handles: weakref.WeakSet = weakref.WeakSet()


def _renew_locks() -> None:
    """In a forked child: the thread that held a lock is not there."""
    for handle in _handles:
        handle._lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)


def _parameters(parts) -> list:
    found = (p for part in parts for module in part.modules for p in module._parameters.values())
    return [p for p in found if p is not None]


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

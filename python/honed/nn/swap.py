"""Exchanges the layers of any model for honed's, in place, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from honed import nn

LAYERS = "_honed_layers"  # the attribute of a model whose layers were exchanged
BEFORE = "_honed_before"  # the attribute of a module that was exchanged: its class and storage before


@dataclass(frozen=True)
class Layers:
    """How a model was honed by layers, and why it is not on the engine."""

    storage: str | None
    reason: str
    unread: dict[str, str] = field(default_factory=dict)  # modules that honed.fold could not read: why


def _classes():
    """torch's class -> honed's of the same name."""
    for name in nn.__all__:
        cls = getattr(nn, name)
        if issubclass(cls, torch.nn.Module):
            yield getattr(torch.nn, name), cls


HONED = dict(_classes())
TORCHS = {cls: theirs for theirs, cls in HONED.items()}


def swap(model, storage: str | None, reason: str) -> None:
    """Gives each module that is exactly of a class of ``torch.nn`` honed's class; nothing else changes."""
    for module in model.modules():
        cls = type(module)
        if cls not in TORCHS and why_left_alone(module) is not None:
            continue
        module.__dict__[BEFORE] = cls, module.__dict__.get("storage")
        module.__class__ = HONED.get(cls, cls)
        if storage is not None and hasattr(module, "storage"):
            module.storage = storage
    model.__dict__[LAYERS] = Layers(storage, reason)


def unswap(model) -> None:
    """Gives every module that was exchanged the class it had, and frees its packed weights."""
    for module in model.modules():
        own = module.__dict__
        if BEFORE in own:
            cls, storage = own.pop(BEFORE)
            module.__class__ = _without_honed(type(module), cls)
            for name in ("storage", "_packed", "_packs"):
                own.pop(name, None)
            if storage is not None:
                module.storage = storage
        own.pop(LAYERS, None)


def _without_honed(now, before):
    """The class before honing; of a class made since then of honed's (a parametrization's), the same one made
    of ``before``. One that has nothing of honed's stays."""
    honed = HONED.get(before, before)
    if now is honed:
        return before
    if honed is before or honed not in now.__bases__:
        return now
    bases = tuple(before if base is honed else base for base in now.__bases__)
    body = {name: value for name, value in vars(now).items() if name not in ("__dict__", "__weakref__")}
    return type(now.__name__, bases, body)


def why_left_alone(module) -> str | None:
    """The reason why a module keeps its class, or ``None``."""
    if type(module) not in HONED:
        near = next((cls for cls in type(module).__mro__ if cls in HONED), None)
        if near is None:
            return f"honed.nn has no {type(module).__name__}"
        return f"its class is not exactly torch.nn.{near.__name__}"
    if "forward" in module.__dict__:
        return "its forward was replaced"
    for name, parameter in module._parameters.items():
        if parameter is not None and type(parameter) is not torch.nn.Parameter:
            return f"its {name} is a {type(parameter).__name__}"
    return None


def layers(model) -> Iterator[tuple[str, torch.nn.Module, str | None]]:
    """Modules that were exchanged or hold parameters: name, module, why left alone (``None``: exchanged)."""
    inside = set()  # what an exchanged module runs itself
    for name, module in model.named_modules():
        if type(module) in TORCHS:
            if isinstance(module, nn.MultiheadAttention):
                inside.add(module.out_proj)
            yield name, module, None
        elif module not in inside and any(p is not None for p in module._parameters.values()):
            yield name, module, why_left_alone(module) or "it came after hone"


def packs(module) -> list:
    """The packed weights that a module of honed's holds now."""
    held = [getattr(module, "_packed", None), *(getattr(module, "_packs", None) or {}).values()]
    return [packed.product for packed in held if packed is not None and packed.product is not None]

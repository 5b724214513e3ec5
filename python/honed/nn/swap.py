"""Exchanges the layers of any model for honed's, in place, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from honed.nn.linear import Linear

LAYERS = "_honed_layers"  # the attribute of a model whose layers were exchanged


@dataclass(frozen=True)
class Layers:
    """How a model was honed by layers, and why it is not on the engine."""

    storage: str | None
    reason: str


def swap(model, storage: str | None, reason: str) -> None:
    """Gives each module that is exactly a ``torch.nn.Linear`` honed's class; nothing else changes."""
    for module in model.modules():
        if why_left_alone(module) is None:
            module.__class__ = Linear
            if storage is not None:
                module.storage = storage
    model.__dict__[LAYERS] = Layers(storage, reason)


def unswap(model) -> None:
    """Gives every ``honed.nn.Linear`` torch's class and frees its packed weight."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = torch.nn.Linear
            for name in ("storage", "_packed"):
                module.__dict__.pop(name, None)
        module.__dict__.pop(LAYERS, None)


def why_left_alone(module) -> str | None:
    """The reason why a module keeps its class, or ``None``."""
    if type(module) is not torch.nn.Linear:
        return "its class is not exactly torch.nn.Linear"
    if "forward" in module.__dict__:
        return "its forward was replaced"
    for name, parameter in module._parameters.items():
        if parameter is not None and type(parameter) is not torch.nn.Parameter:
            return f"its {name} is a {type(parameter).__name__}"
    return None


def layers(model) -> Iterator[tuple[str, torch.nn.Module, str | None]]:
    """The modules that hold parameters: name, module, and why it was left alone (``None``: exchanged)."""
    for name, module in model.named_modules():
        if type(module) is Linear:
            yield name, module, None
        elif any(parameter is not None for parameter in module._parameters.values()):
            yield name, module, why_left_alone(module) or "it came after hone"

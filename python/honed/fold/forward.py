"""fold and unfold: modules whose forward runs a plan, and back."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass

import torch

from honed.fold.fused import HEADS, NORMS
from honed.fold.plan import Plan
from honed.fold.trace import Untraceable, arguments, is_leaf
from honed.ops._dispatch import is_compiling

_TRIES = 8  # plans that a module may outgrow before it stays with its own forward


class Forward:
    """The ``forward`` of one module: a plan where it is safe, else the class's own.

    Copies and pickles make their own plan when they first run.
    """

    def __init__(self, module):
        self.module = module
        self.plan = None
        self.reason = ""  # why there is no plan
        self.tries = _TRIES

    @property
    def __wrapped__(self):  # for those who ask for the arguments
        return type(self.module).forward.__get__(self.module)

    @property
    def __code__(self):
        return inspect.unwrap(type(self.module).forward).__code__

    def __call__(self, *args, **kwargs):
        module = self.module
        if not is_compiling() and not module.__dict__["training"]:
            if kwargs:
                args, kwargs = self._in_order(args, kwargs)
            plan = self.plan
            if not kwargs and (plan is not None or self.prepare()):
                plan = self.plan
                if plan.safe(args) and (plan.unchanged() or self._again()):
                    return self.plan.run(*args)
        return type(module).forward(module, *args, **kwargs)

    def _in_order(self, args, kwargs):
        """The same call with arguments by name moved to their places, as far as the plan takes them, and
        without those that say what is the default."""
        names, given = arguments(self.module)
        found = [*args]
        rest = dict(kwargs)
        for name in names[len(args) : len(given)]:
            if name not in rest:
                return args, kwargs
            found.append(rest.pop(name))
        defaults = inspect.signature(type(self.module).forward).parameters
        for name in [*rest]:
            if name in defaults and rest[name] is defaults[name].default:
                del rest[name]
        return (args, kwargs) if rest else (tuple(found), {})

    def prepare(self) -> bool:
        """Makes a plan, if there is none; False where there can be none."""
        if self.plan is None and self.tries > 0:
            self.tries -= 1
            try:
                plan = Plan(self.module)
            except Untraceable as error:
                self.reason, self.tries = str(error), 0
                return False
            if not plan.fused:
                self.reason, self.tries = "nothing in it becomes one call", 0
                return False
            self.plan = plan
        return self.plan is not None

    def _again(self) -> bool:
        """Another plan, if the modules have changed but for their mode."""
        if any(part.training for part in self.module.modules() if not is_leaf(part)):
            return False
        self.plan = None
        return self.prepare() and self.plan.unchanged()

    def __reduce__(self):
        return _blank, (), {"module": self.module, "plan": None, "reason": self.reason, "tries": _TRIES}

    def __deepcopy__(self, memo):
        return Forward(copy.deepcopy(self.module, memo))  # the memo has it, where the module is being copied


def _blank():
    return Forward.__new__(Forward)


def fold(model) -> dict[str, str]:
    """Gives the largest modules that can be read a :class:`Forward`; returns why others could not be."""
    reasons = {}
    _fold(model, "", reasons)
    return reasons


def _fold(module, name, reasons):
    if is_leaf(module) or not any(type(part) in HEADS for part in module.modules()):
        return
    if type(module.__dict__.get("forward")) is Forward:
        return  # it is in the model twice
    if "forward" in module.__dict__:
        reasons[name] = "its forward was replaced"
    elif type(module).forward is not torch.nn.Module.forward:
        forward = module.__dict__["forward"] = Forward(module)
        if forward.prepare():
            return
        del module.__dict__["forward"]
        reasons[name] = forward.reason
        if "becomes one call" in forward.reason:
            return
    for child_name, child in module._modules.items():
        if child is not None:
            _fold(child, _joined(name, child_name), reasons)


@dataclass
class Note:
    """What became of one module, for ``report``."""

    steps: str = ""  # what its call does besides
    inside: str = ""  # the module whose call does its work
    packed: object = None
    reason: str = ""


def notes(model, unread) -> dict:
    """module -> :class:`Note`, of modules that are calls of several steps, part of one, or could be."""
    found = {}
    for prefix, module in model.named_modules():
        forward = module.__dict__.get("forward")
        if type(forward) is not Forward or not forward.prepare():
            continue
        for name, fused, said in forward.plan.fused:
            note = found[fused.head] = Note(" + ".join(said))
            note.packed = getattr(fused.packed, "product", None)
            for part in fused.parts[1:]:
                found[part] = Note(inside=_joined(prefix, name))
        for name, reason in forward.plan.apart.items():
            found.setdefault(module.get_submodule(name), Note(reason=reason))
    for name, module in model.named_modules():
        if type(module) in NORMS and module not in found:
            around = [n for n in unread if n == "" or name.startswith(n + ".")]
            if around:
                found[module] = Note(reason=f"not folded: {unread[max(around, key=len)]}")
    return found


def _joined(prefix, name):
    return f"{prefix}.{name}" if prefix else name


def unfold(model) -> None:
    """Takes the plans away."""
    for module in model.modules():
        if type(module.__dict__.get("forward")) is Forward:
            del module.__dict__["forward"]

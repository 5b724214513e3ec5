"""A graph as a Python function that calls its steps, and what has to hold for it to be run."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
import types

import torch
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from honed._lib import _core
from honed.fold.chains import fuse, why_apart
from honed.fold.region import gather
from honed.fold.trace import is_leaf, trace

_reads = _core.reads
_functorch = torch._C._functorch.peek_interpreter_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_INTERNAL = frozenset(torch.nn.Module().__dict__) - {"training"}
_OPTIONS = ("inplace", "approximate", "min_val", "max_val")  # of leaves: what folding goes by
_CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)  # their attributes say nothing


class Plan:
    """The forward of a module in eval mode without gradients, with its chains as one call each.

    ``safe`` says whether running it gives what the module's forward would. What a call cannot notice: values
    inside objects that a forward reads, other than modules, configurations, lists and dicts.
    """

    def __init__(self, module):
        graph = trace(module)
        parts = dict(module.named_modules())
        self.fused = fuse(graph, parts)
        self.apart = why_apart(graph, parts)
        self.regions = gather(graph, module, parts, emit)
        self.run, self.count = emit(graph, module)
        inner = self._inner = [part for part in parts.values() if not is_leaf(part)]
        self._classes = [type(part) for part in inner]
        own = [part for part in inner if type(part) not in _CONTAINERS]
        plain = [part for part in inner if type(part) in _CONTAINERS and part is not module]
        self._plain = [part.__dict__ for part in plain]
        states = [({**part.__dict__, "training": False}, part.__dict__) for part in own]
        states += [(dict(vars(value)), vars(value)) for value in _settings(own)]
        self._children = [part._modules for part in inner]
        self._counted = [now for _, now in states] + self._children
        leaves = [part.__dict__ for part in parts.values() if is_leaf(part)]
        options = [({name: own[name] for name in _OPTIONS if name in own}, own) for own in leaves]
        self._states = [_state(*state) for state in (*states, *(both for both in options if both[0]))]
        self._counts = [*map(len, self._counted)]
        self._childrens = [*itertools.chain.from_iterable(map(dict.values, self._children))]
        held = [v for part in own for v in part.__dict__.values() if type(v) in (list, dict, set)]
        self._held = [(value, value.copy()) for value in held]
        self._hooks = [_global_forward_hooks, _global_forward_pre_hooks]
        for part in inner:
            if part is not module:
                self._hooks += part._forward_hooks, part._forward_pre_hooks
        self._parameters = [part._parameters for part in parts.values()]

    def safe(self, args) -> bool:
        """Plain tensors, no gradients, hooks, autocast or tracers; ``unchanged`` looks at the modules."""
        return (
            len(args) == self.count
            and _reads(*args) == 1
            and not any(self._hooks)
            and not torch.is_autocast_enabled("cpu")
            and not _dispatch_modes()
            and _functorch() is None
            and not (torch.is_grad_enabled() and self._wants_gradients())
        )

    def unchanged(self) -> bool:
        """The modules that were read through are what they were, all in eval mode."""
        try:
            if [*map(len, self._counted)] != self._counts:
                return False
            for get, now, then in self._states:
                if get(now) != then:
                    return False
            if [*itertools.chain.from_iterable(map(dict.values, self._children))] != self._childrens:
                return False
            for attributes in self._plain:
                if "forward" in attributes:
                    return False
            return [*map(type, self._inner)] == self._classes and all(now == then for now, then in self._held)
        except (KeyError, RuntimeError):  # an attribute is gone; two tensors, which cannot be compared
            return False

    def _wants_gradients(self):
        held = itertools.chain.from_iterable(slots.values() for slots in self._parameters)
        return any(p is not None and p.requires_grad for p in held)


def _state(then, now):
    """How to read the attributes that the code of a module may ask for, from where, and their values."""
    names = [name for name in then if name not in _INTERNAL] or [*then][:1]
    get = operator.itemgetter(*names)
    return get, now, get(then)


def _settings(modules) -> list:
    """Configurations that the modules have as attributes."""
    found = {}
    for module in modules:
        for value in module.__dict__.values():
            kind = type(value)
            if (
                kind.__name__.endswith("Config")
                or isinstance(value, types.SimpleNamespace)
                or (dataclasses.is_dataclass(value) and not isinstance(value, type))
            ) and getattr(value, "__dict__", None):
                found[id(value)] = value
    return list(found.values())


def emit(graph, root):
    """The graph as a function, and how many arguments it takes. Values are dropped after their last use."""
    names, fixed, lines = {}, {}, []
    last = {}
    for node in graph.nodes:
        for used in node.all_input_nodes:
            last[used] = node
    dies = {}
    for value, user in last.items():
        dies.setdefault(user, []).append(value)

    def constant(value):
        name = f"c{len(fixed)}"
        fixed[name] = value
        return name

    def text(value):
        kind = type(value)
        if kind is torch.fx.Node:
            return names[value]
        if kind is tuple:
            return "(" + "".join(text(v) + ", " for v in value) + ")"
        if issubclass(kind, (list, torch.fx.immutable_collections.immutable_list)):
            return "[" + ", ".join(map(text, value)) + "]"
        if issubclass(kind, (dict, torch.fx.immutable_collections.immutable_dict)):
            return "{" + ", ".join(f"{text(k)}: {text(v)}" for k, v in value.items()) + "}"
        if kind is slice:
            return f"slice({text(value.start)}, {text(value.stop)}, {text(value.step)})"
        if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
            return repr(value)
        return constant(value)

    def call(function, node, args):
        given = [text(arg) for arg in args] + [f"{name}={text(v)}" for name, v in node.kwargs.items()]
        return f"{function}({', '.join(given)})"

    given = []
    for i, node in enumerate(graph.nodes):
        name = names[node] = f"v{i}"
        if node.op == "placeholder":
            given.append(name)
            continue
        if node.op == "output":
            lines.append(f"return {text(node.args[0])}")
            break
        if node.op == "call_module":
            made = call(constant(root.get_submodule(node.target)), node, node.args)
        elif node.op == "call_function":
            made = call(constant(node.target), node, node.args)
        elif node.op == "call_method":
            made = call(f"{text(node.args[0])}.{node.target}", node, node.args[1:])
        else:
            made = _attribute(root, node.target, constant)
        lines.append(f"{name} = {made}")
        gone = [names[value] for value in dies.get(node, ())] + ([] if node in last else [name])
        if gone:
            lines.append(f"del {', '.join(gone)}")
    source = f"def run({', '.join(given)}):\n" + "".join(f"    {line}\n" for line in lines)
    exec(compile(source, f"<honed plan of {type(root).__name__}>", "exec"), fixed)
    return fixed["run"], len(given)


def _attribute(root, target, constant):
    """A parameter or buffer as it is at the time of the call, or a module."""
    path, _, name = target.rpartition(".")
    owner = root.get_submodule(path)
    for slots in (owner._parameters, owner._buffers):
        if name in slots:
            return f"{constant(slots)}[{name!r}]"
    return constant(owner._modules[name] if name in owner._modules else getattr(owner, name))

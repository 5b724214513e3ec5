"""A module's forward as a torch.fx graph, or the reason why it cannot be read so."""

from __future__ import annotations

import inspect
import operator
import random
import sys
import threading

import torch
from torch import fx

# Helpers whose control flow reads shapes: each is one step of the graph. None of them changes its arguments.
_OPAQUE = (
    ("transformers.models.mobilenet_v1.modeling_mobilenet_v1", "apply_tf_padding"),
    ("transformers.models.mobilenet_v2.modeling_mobilenet_v2", "apply_tf_padding"),
)
_METHODS = frozenset(dir(torch.Tensor))
_lock = threading.RLock()  # torch.fx exchanges torch.nn.Module's methods while it traces


class Untraceable(Exception):
    """The text is the reason that ``report`` shows."""


class _Value(fx.Proxy):
    """A value that is not known yet, and says so to whoever asks for more than operations on it.

    torch.fx's own proxy answers ``isinstance`` and ``hasattr``, and a forward that asks would be traced along
    a way that tensors do not take.
    """

    @property
    def __class__(self):
        raise Untraceable("it asks for the class of a value")

    def __getattr__(self, name):
        if name not in _METHODS:
            raise AttributeError(name)
        return _Attribute(self, name)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return fx.Proxy.__torch_function__.__func__(_Value, function, types, args, kwargs)


def _in_place(name):
    function = getattr(operator, name)

    def method(self, other):
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


# torch.fx reads ``x += y`` as ``x = x + y``, which other names of x do not see.
IN_PLACE = (
    "add",
    "and",
    "floordiv",
    "lshift",
    "matmul",
    "mod",
    "mul",
    "or",
    "pow",
    "rshift",
    "sub",
    "truediv",
    "xor",
)
for _name in IN_PLACE:
    setattr(_Value, f"__i{_name}__", _in_place(f"i{_name}"))


class _Attribute(fx.proxy.Attribute, _Value):
    """An attribute or a method of a value."""


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # their values may change

    def __init__(self, given):
        super().__init__(autowrap_functions=opaque_functions())
        self.given = given  # names of the arguments that are tensors; the others have their defaults
        self.thread = threading.get_ident()

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        values = {name: self.create_proxy("placeholder", name, (), {}) for name in self.given}
        return lambda: root_fn(self.root, **values), []

    def is_leaf_module(self, module, name):
        return is_leaf(module)

    def call_module(self, module, forward, args, kwargs):
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(module, forward, args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node):
        return _Value(node, self)

    def create_arg(self, a):
        if issubclass(type(a), fx.Proxy):
            return a.node
        if isinstance(a, torch.Tensor) and not isinstance(a, torch.nn.Parameter):
            raise Untraceable("it computes with a tensor that is neither argument, parameter nor buffer")
        if isinstance(a, (dict, list)) and type(a) not in (dict, list):
            raise Untraceable(f"it makes a {type(a).__name__}")
        return super().create_arg(a)


def opaque_functions() -> tuple:
    """Those of ``_OPAQUE`` that are loaded."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _OPAQUE)
    return tuple(function for function in found if function is not None)


def is_leaf(module) -> bool:
    """True for torch's and honed's own layers, which are called as they are."""
    origin = type(module).__module__
    inside = origin.startswith(("torch.nn.", "honed.nn."))
    return inside and not isinstance(module, (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict))


def arguments(module) -> tuple[list[str], tuple[str, ...]]:
    """Names of all arguments of its forward, and of those that a call gives: all without a default, at
    least one."""
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if len(named) != len([p for p in parameters if p.kind != p.VAR_KEYWORD]):
        raise Untraceable("it takes any number of arguments")
    given = tuple(p.name for p in named if p.default is p.empty) or tuple(p.name for p in named[:1])
    if not given:
        raise Untraceable("it takes no arguments")
    if [p.name for p in named[: len(given)]] != list(given) or named[0].kind != named[
        0
    ].POSITIONAL_OR_KEYWORD:
        raise Untraceable("arguments that it needs come after others")
    return [p.name for p in named], given


def trace(module) -> fx.Graph:
    """The graph of ``module`` in eval mode, or raises :class:`Untraceable`.

    Torch's and honed's layers are its leaves; everything else is read through.
    """
    parts = list(module.modules())
    with _lock, torch.no_grad():
        before = [(part, dict(part.__dict__), dict(part._modules)) for part in parts]
        held = [(value, value.copy()) for part in parts for value in _containers(part.__dict__)]
        drawn = _random_state()
        for part in parts:
            part.__dict__["training"] = False
        try:
            graph = _Tracer(arguments(module)[1]).trace(module)
        except Untraceable:
            raise
        except Exception as error:  # whatever a forward does with what is no tensor
            said = str(error).strip().splitlines() or [""]
            raise Untraceable(f"{type(error).__name__}: {said[0]}"[:120]) from None
        finally:
            for part, old, _ in before:
                part.__dict__["training"] = old["training"]
            changed = [entry for entry in before if not _is_same(*entry)]
            for part, old, children in changed:
                part.__dict__.clear()
                part.__dict__.update(old)
                part._modules.clear()
                part._modules.update(children)
            for value, old in held:
                if not _same_items(value, old):
                    changed.append(value)
                    value.clear()
                    (value.extend if isinstance(value, list) else value.update)(old)
    if changed:
        raise Untraceable("it sets attributes of its modules")
    if _random_state() != drawn:
        raise Untraceable("it draws random numbers")
    return graph


def _containers(attributes) -> list:
    """The lists, dicts and sets among attributes, and inside of them."""
    found, todo = {}, list(attributes.values())
    while todo:
        value = todo.pop()
        if type(value) in (list, dict, set) and id(value) not in found:
            found[id(value)] = value
            todo += value.values() if type(value) is dict else value
    return list(found.values())


def _same_items(now, then) -> bool:
    """Whether a container holds the same objects; the order of dicts does not count."""
    if type(now) is set:
        return now == then
    if type(now) is dict:
        return now.keys() == then.keys() and all(now[key] is then[key] for key in then)
    return len(now) == len(then) and all(map(operator.is_, now, then))


def _random_state():
    """Of torch's and Python's generators: a forward that moves them must not become a constant."""
    return torch.get_rng_state().numpy().tobytes(), random.getstate()


def _is_same(part, attributes, children) -> bool:
    """Whether a module has these attributes and children, the same objects."""
    return all(
        now.keys() == then.keys() and all(now[name] is then[name] for name in then)
        for now, then in ((part.__dict__, attributes), (part._modules, children))
    )

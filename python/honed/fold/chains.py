"""Finds what can be one call in a graph, and makes it so."""

from __future__ import annotations

import operator

import torch
from torch import nn

from honed import nn as honed_nn
from honed.fold.fused import HEADS, NORMS, Fused, Pair, first_takes_pixels
from honed.fold.trace import IN_PLACE, opaque_functions

F = torch.nn.functional
_ADDS = {operator.add: False, operator.iadd: True, torch.add: False}  # function -> whether it is in place
_IN_PLACE = {operator.setitem, operator.delitem, *(getattr(operator, f"i{name}") for name in IN_PLACE)}
_FUNCTIONS = {
    F.relu: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu_: "relu",
    F.relu6: "relu6",
    F.silu: "silu",
    F.gelu: "gelu",
    F.hardtanh: "relu6",
    F.hardtanh_: "relu6",
}
_MODULES = {
    **dict.fromkeys((nn.ReLU, honed_nn.ReLU), "relu"),
    **dict.fromkeys((nn.ReLU6, honed_nn.ReLU6), "relu6"),
    **dict.fromkeys((nn.SiLU, honed_nn.SiLU), "silu"),
    **dict.fromkeys((nn.GELU, honed_nn.GELU), "gelu"),
    nn.Hardtanh: "relu6",
}
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, honed_nn.Dropout)
_ORIGINS = (
    "torch",
    "_operator",
    "math",
    "builtins",
    "honed",
)  # functions whose names say if they are in place


def fuse(graph, modules) -> list[tuple[str, Fused, list[str]]]:
    """Replaces chains of a graph by calls of :class:`Fused`, in place.

    ``modules``: by their names in the graph. Returns for each the name of its first module, the call, and
    what the other steps are.
    """
    nodes = list(graph.nodes)
    place = {node: i for i, node in enumerate(nodes)}
    changes = [0]  # how many nodes before one change a value in place
    for node in nodes:
        changes.append(changes[-1] + _is_in_place(node, modules))
    taken, made = set(), []
    for node in nodes:
        if node in taken or not _is_head(node, modules):
            continue
        chain = _Chain(node, modules)
        while (user := chain.next_step()) is not None:
            if user not in place:
                break  # a call made of other steps
            first, last = place[node] + 1, place[user]
            inside = sum(_is_in_place(other, modules) for other in chain.nodes[1:])
            if changes[last] - changes[first] > inside or not chain.accept(user):
                break
        if chain.cut():
            taken.update(chain.nodes)
            made.append((node.target, chain.replaced(graph), chain.said))
    _join(graph, modules)
    return made


def _join(graph, modules) -> None:
    """Makes one call of a 1x1 convolution and the depthwise one that alone uses what it gives."""
    last, changed = {}, 0  # by node: how many nodes before it change a value in place
    for node in list(graph.nodes):
        last[node] = changed
        changed += not isinstance(node.target, Fused) and _is_in_place(node, modules)
        before = node.args[0] if node.args else None
        if not (_is_conv2d(node) and _is_conv2d(before)) or len(before.users) != 1:
            continue
        first, second = before.target, node.target
        head = second.head
        depthwise = head.groups == head.in_channels == head.out_channels and head.padding_mode == "zeros"
        if depthwise and len(before.args) == 1 and first_takes_pixels(first) and last[before] == last[node]:
            with graph.inserting_before(node):
                pair = graph.call_function(Pair(first, second), (before.args[0], *node.args[1:]))
            last[pair] = last[node]
            node.replace_all_uses_with(pair)
            graph.erase_node(node)
            graph.erase_node(before)


def _is_conv2d(node) -> bool:
    target = getattr(node, "target", None)
    return isinstance(target, Fused) and type(target.head) is honed_nn.Conv2d


def why_apart(graph, modules) -> dict[str, str]:
    """For each batch norm that stays a call in a graph: the reason."""
    found = {}
    for node in graph.nodes:
        if node.op != "call_module" or type(modules[node.target]) not in NORMS:
            continue
        before = node.args[0] if node.args else None
        if getattr(before, "op", None) != "call_module" or not _is_head(before, modules):
            found[node.target] = "not folded: no convolution comes before it"
        elif len(before.users) > 1:
            found[node.target] = "not folded: what the convolution gives is used elsewhere, too"
        else:
            found[node.target] = "not folded: values are changed in place in between, or it has no statistics"
    return found


class _Chain:
    """A head and the steps after it that one call can make: a norm, a sum, an activation, in this order."""

    def __init__(self, node, modules):
        self.nodes, self.modules = [node], modules
        self.head = modules[node.target]
        self.norm = self.residual = None
        self.activation = "none"
        self.steps, self.said = [], []
        self.useful = 0  # steps up to the last one that is worth a call

    def next_step(self):
        """The one node that uses what the chain gives so far, once."""
        value = self.nodes[-1]
        if len(value.users) != 1:
            return None
        (user,) = value.users
        return user if user.all_input_nodes.count(value) == 1 and _uses(user, value) == 1 else None

    def accept(self, user) -> bool:
        """Takes a node in as the next step, if one call can do it."""
        step = adds = None
        if user.op == "call_module" and user.args == (self.nodes[-1],) and not user.kwargs:
            step = self.modules[user.target]
        last = False
        if step is not None and type(step) in _IDLE:
            pass
        elif step is not None and type(step) in NORMS:
            if not self._takes_norm(step):
                return False
            self.norm, last = step, True
            self.said.append("batch norm")
        elif (name := _activation(user, self.nodes[-1], self.modules)) is not None:
            if self.activation != "none" or (self._is_linear() and self.residual is not None):
                return False
            if type(self.head) in NORMS and name not in ("relu", "relu6"):
                return False
            self.activation, last = name, True
            self.said.append(name)
            step = step or _call_of(user, self.nodes[-1])
        elif (added := _added(user, self.nodes[-1])) is not None:
            if self.residual is not None or (self.activation != "none" and not self._is_linear()):
                return False
            self.residual, last, adds = added, True, True
            self.said.append("sum")
            step = _sum_of(user, self.nodes[-1])
        elif _is_idle_call(user, self.nodes[-1]):
            step = _call_of(user, self.nodes[-1])
        else:
            return False
        self.nodes.append(user)
        self.steps.append((step, bool(adds)))
        if last:
            self.useful = len(self.steps)
        return True

    def _is_linear(self):
        return type(self.head) is honed_nn.Linear

    def _takes_norm(self, norm):
        kind = type(self.head)
        if self.norm is not None or self.residual is not None or self.activation != "none":
            return False
        if norm.running_mean is None or kind in NORMS:
            return False
        if kind is honed_nn.Linear:
            return type(norm) is honed_nn.BatchNorm1d and norm.num_features == self.head.out_features
        dimensions = len(self.head.kernel_size)
        return type(norm) is NORMS[dimensions - 1] and norm.num_features == self.head.out_channels

    def cut(self) -> bool:
        """Leaves out idle steps at the end; True where a call remains that is worth it."""
        del self.nodes[self.useful + 1 :], self.steps[self.useful :]
        return self.useful > 0

    def replaced(self, graph) -> Fused:
        """Puts one call in the place of the last node."""
        last = self.nodes[-1]
        fused = Fused(self.head, self.norm, self.steps, self.activation)
        given = self.nodes[0].args[0], *(() if self.residual is None else (self.residual,))
        with graph.inserting_before(last):
            node = graph.call_function(fused, given)
        last.replace_all_uses_with(node)
        for old in reversed(self.nodes):
            graph.erase_node(old)
        return fused


def _is_head(node, modules) -> bool:
    if node.op != "call_module" or type(modules[node.target]) not in HEADS:
        return False
    return len(node.args) == 1 and isinstance(node.args[0], torch.fx.Node) and not node.kwargs


def _uses(user, value) -> int:
    count = 0

    def look(node):
        nonlocal count
        count += node is value
        return node

    torch.fx.node.map_arg((user.args, user.kwargs), look)
    return count


def _added(node, value):
    """What a node adds to ``value``, or ``None``; in place only to ``value`` itself."""
    if node.op == "call_function" and node.target in _ADDS:
        in_place = _ADDS[node.target]
    elif node.op == "call_method" and node.target in ("add", "add_"):
        in_place = node.target == "add_"
    else:
        return None
    if len(node.args) != 2 or node.kwargs or (in_place and node.args[0] is not value):
        return None
    other = node.args[1] if node.args[0] is value else node.args[0]
    return other if isinstance(other, torch.fx.Node) else None


def _sum_of(node, value):
    """The same sum of ``(value, residual)``."""
    add = node.target if node.op == "call_function" else _method(node.target)
    if node.args[0] is value:
        return add
    return lambda y, residual: add(residual, y)


def _call_of(node, value):
    """The node as a function of its first argument alone."""
    function = node.target if node.op == "call_function" else _method(node.target)
    rest, options = node.args[1:], dict(node.kwargs)
    assert node.args[0] is value
    return lambda y: function(y, *rest, **options)


def _method(name):
    return lambda self, *args, **kwargs: getattr(self, name)(*args, **kwargs)


def _activation(node, value, modules) -> str | None:
    """What honed.ops calls the activation that a node is, or ``None``."""
    if node.op == "call_module":
        module = modules[node.target]
        name = _MODULES.get(type(module))
        if name == "gelu" and module.approximate == "tanh":
            return "gelu_tanh"
        if type(module) is nn.Hardtanh and (module.min_val, module.max_val) != (0, 6):
            return None
        return name
    if not node.args or node.args[0] is not value:
        return None
    options = {name: option for name, option in node.kwargs.items() if name != "inplace"}
    if node.op == "call_method":
        if node.target in ("relu", "relu_") and len(node.args) == 1 and not options:
            return "relu"
        return None
    name = _FUNCTIONS.get(node.target) if node.op == "call_function" else None
    if name is None:
        return None
    if node.target in (F.hardtanh, F.hardtanh_):
        limits = dict(zip(("min_val", "max_val"), node.args[1:3], strict=False)) | options
        return name if limits == {"min_val": 0, "max_val": 6} else None
    if name == "gelu":
        kinds = {(): "gelu", ("none",): "gelu", ("tanh",): "gelu_tanh"}
        return kinds.get((*node.args[1:], *options.values()))
    return name if not options and all(isinstance(flag, bool) for flag in node.args[1:]) else None


def _is_idle_call(node, value) -> bool:
    """A dropout outside training."""
    if node.op != "call_function" or node.target not in (F.dropout, F.dropout2d) or not node.args:
        return False
    training = node.args[2] if len(node.args) > 2 else node.kwargs.get("training", True)
    return training is False and node.args[0] is value


def _is_in_place(node, modules) -> bool:
    """Whether a node may change a value that others see."""
    if node.op == "call_module":
        module = modules[node.target]
        return bool(getattr(module, "inplace", False)) or bool(module._forward_hooks)
    if node.op == "call_method":
        return node.target.endswith("_") or node.kwargs.get("out") is not None
    if node.op != "call_function":
        return False
    name, origin = getattr(node.target, "__name__", "_"), getattr(node.target, "__module__", None) or "torch"
    if node.target in opaque_functions():
        return False
    return (
        node.target in _IN_PLACE
        or name.endswith("_")
        or origin.split(".")[0] not in _ORIGINS
        or "out" in node.kwargs
        or any(option is True for option in (*node.args[1:], *node.kwargs.values()))
    )

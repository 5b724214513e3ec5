"""Parts of a graph whose steps are all kernels' calls, as one call of all of them."""

from __future__ import annotations

import torch
from torch import fx, nn

from honed import nn as honed_nn
from honed._lib import _core
from honed.fold.fused import Fused, Pair

_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, honed_nn.Dropout)
_PLAIN = (
    honed_nn.MaxPool1d,
    honed_nn.MaxPool2d,
    honed_nn.AvgPool1d,
    honed_nn.AvgPool2d,
    honed_nn.AdaptiveAvgPool1d,
    honed_nn.AdaptiveAvgPool2d,
    honed_nn.Conv1d,
    honed_nn.Conv2d,
    honed_nn.Conv3d,
    honed_nn.ReLU,
    honed_nn.SiLU,
    honed_nn.GELU,
    honed_nn.Linear,
    nn.Flatten,
)
_GRAPHS = 4  # of sizes and layouts, that a region keeps
# Bytes of weights that stay in the last cache beside the activations of an image: with more, every image of
# a batch would read them from memory.
_WEIGHTS = 16 << 20
_FEW_WEIGHTS = 4 << 20  # the first part of a network that has more in all
_OPTIONS = ("forward", "storage", "exact", "accumulate")  # absent as a rule, and then may be set
_INTERNAL = frozenset(nn.Module().__dict__) - {"training", "_parameters", "_buffers"}
_run_linear = _core.linear_packed


class Region:
    """A run of steps: a :class:`_core.Graph` for each size and layout of its inputs, or one step after the
    other.

    A graph holds what was prepared for these modules and tensors; each call looks whether they are still the
    same. ``each``: graphs are of one image, and a batch is images one by one, which stay in the caches.
    """

    __name__ = "region"

    def __init__(self, steps, apart, modules, each):
        self.steps = steps  # (function, places of its arguments), a list of values growing by one each
        self.apart = apart  # the steps as they are in the plan: a function, and the places of its results
        self.results = ()
        self.modules, self.each = modules, each
        self.watch = self.tensors = self.mark = None
        self.graphs = {}
        self.whole = True  # False for tests that look at the steps

    def __call__(self, *inputs):
        if self.whole:
            watch = self.watch
            if watch is None or not watch.holds():
                watch = self._look()
            if watch is not None:
                mark = _core.fingerprint(*self.tensors)
                if mark != self.mark:
                    self.graphs, self.mark = {}, mark
                found = self._run(self.graphs, inputs)
                if found is not None:
                    return found
        return self.apart(*inputs)

    def _run(self, graphs, inputs):
        first = inputs[0]
        if self.each and all(x.dim() > 1 and x.shape[0] == first.shape[0] > 0 for x in inputs):
            key = tuple([(x.shape[1:], x.stride()[1:], x.dtype) for x in inputs])
            each = True
        else:
            key = tuple([(x.shape, x.stride(), x.dtype) for x in inputs])
            each = False
        graph = graphs.get(key)
        if graph is None:
            if key in graphs:
                return None
            graph = self._record([x[:1] for x in inputs] if each else inputs, each)
            for old in [*graphs][: 1 - _GRAPHS]:
                graphs.pop(old, None)
            graphs[key] = graph
            if graph is None:
                return None
        return graph.each(*inputs) if each else graph(*inputs)

    def _look(self):
        """Watches over the modules as they are now; ``None`` where calling them is more than their classes'
        forwards in eval mode."""
        self.watch = None
        watch, tensors = _core.Watch(), []
        for module in self.modules:
            own = module.__dict__
            if "forward" in own or own["training"] or module._forward_hooks or module._forward_pre_hooks:
                return None
            watch.type(module)
            watch.empty(module._forward_hooks)
            watch.empty(module._forward_pre_hooks)
            for name in {*own, *_OPTIONS} - _INTERNAL:
                if not name.startswith("_packed"):
                    watch.entry(own, name)
            for slots in (module._parameters, module._buffers):
                for name, tensor in slots.items():
                    watch.entry(slots, name)
                    if name != "num_batches_tracked":
                        tensors.append(tensor)
        self.tensors, self.graphs, self.mark, self.watch = tensors, {}, None, watch
        return watch

    def _record(self, inputs, each):
        """The graph of the steps for inputs that lie so; ``None`` where a step is no kernel's call."""

        def steps(tape):
            values = [*inputs]
            for function, places in self.steps:
                y = function(tape, *[values[i] for i in places])
                if type(y) is not torch.Tensor or not tape.knows(y) or (each and y.shape[:1] != (1,)):
                    return None
                values.append(y)
            return [values[i] for i in self.results]

        constants = [t for t in self.tensors if t is not None]
        try:
            return _core.record([*inputs], constants, steps)
        except (TypeError, ValueError):  # what the steps may take, one by one
            return None


def _fused(call):
    return lambda tape, x, residual=None: call.once(tape, x, residual) if call.is_plain() else None


def _pair(call):
    def run(tape, x, residual=None):
        y = call._joined(x, residual)
        if y is None:
            y = _fused(call.first)(tape, x)
            y = None if y is None else _fused(call.second)(tape, y, residual)
        return y

    return run


def _linear(module):
    def run(tape, x):
        packed = module.packed_for(x)
        return None if packed is None or packed.product is None else _run_linear(x, packed.product, None, 0)

    return run


def _step(node, modules):
    """How a step is written down, and the modules that it runs; ``None`` where it stays Python's."""
    if node.op not in ("call_module", "call_function", "call_method") or not node.args:
        return None
    target = node.target
    if node.op == "call_module":
        module = modules[target]
        kind = type(module)
        if len(node.args) != 1 or node.kwargs or getattr(module, "inplace", False):
            return None if kind not in _IDLE else (lambda tape, x: x, [module])
        if kind in _IDLE:
            return lambda tape, x: x, [module]
        if kind is honed_nn.Linear:
            return _linear(module), [module]
        return (lambda tape, x: type(module).forward(module, x), [module]) if kind in _PLAIN else None
    if isinstance(target, (Fused, Pair)):
        if node.kwargs or not all(isinstance(arg, fx.Node) for arg in node.args):
            return None
        calls = [target] if isinstance(target, Fused) else [target.first, target.second]
        parts = [
            part for call in calls for part in (*call.parts, *([] if call.norm is None else [call.norm]))
        ]
        return (_pair if isinstance(target, Pair) else _fused)(target), parts
    if target is torch.flatten or (node.op == "call_method" and target == "flatten"):
        rest, options = node.args[1:], dict(node.kwargs)
        start = rest[0] if rest else options.get("start_dim", 0)
        fixed = all(type(value) is int for value in (*rest, *options.values()))
        return (lambda tape, x: x.flatten(*rest, **options), []) if fixed and start != 0 else None
    return None


def _bytes(parts) -> int:
    return sum(t.numel() * t.element_size() for part in parts for t in part.parameters(recurse=False))


def gather(graph, root, modules, emit) -> list[Region]:
    """Replaces each run of steps that kernels do by a call of a :class:`Region`, in place.

    ``emit`` makes a function of a graph.
    """
    runs, now = [], []
    for node in [*graph.nodes]:
        found = _step(node, modules)
        if found is not None and all(isinstance(n, fx.Node) for n in node.all_input_nodes):
            now.append((node, *found))
        elif node.op not in ("placeholder", "get_attr"):
            runs.append(now)
            now = []
    made = []
    for run in runs:
        for part, each in _divided(run):
            if len(part) > 1:
                made.append(_region(graph, root, part, each, emit))
    return made


def _divided(run):
    """A run in parts, and whether batches go through them image by image: all of it, or its first steps."""
    sizes = [_bytes(parts) for _, _, parts in run]
    if sum(sizes) <= _WEIGHTS:
        return [(run, True)]
    total = count = 0
    for size in sizes:
        total += size
        if total > _FEW_WEIGHTS:
            break
        count += 1
    return [(run[:count], True), (run[count:], False)]


def _region(graph, root, run, each, emit):
    nodes = [node for node, _, _ in run]
    inside = set(nodes)
    given = [*dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in inside)]
    results = [node for node in nodes if any(user not in inside for user in node.users)]
    part, copies = fx.Graph(), {}
    for node in given:
        copies[node] = part.placeholder(node.name)
    for node in nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
    outputs = [copies[node] for node in results]
    part.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
    places = {node: i for i, node in enumerate([*given, *nodes])}
    steps = [(step, [places[arg] for arg in node.args if isinstance(arg, fx.Node)]) for node, step, _ in run]
    parts = [*dict.fromkeys(part for _, _, parts in run for part in parts)]
    region = Region(steps, emit(part, root)[0], parts, each)
    region.results = [places[node] for node in results]
    with graph.inserting_after(nodes[-1]):
        call = graph.call_function(region, tuple(given))
    if len(results) == 1:
        made = [call]
    else:
        with graph.inserting_after(call):
            made = [graph.call_function(_item, (call, i)) for i in range(len(results))]
    for node, value in zip(results, made, strict=True):
        node.replace_all_uses_with(value, delete_user_cb=lambda user: user not in inside)
    for node in reversed(nodes):
        graph.erase_node(node)
    return region


def _item(values, i):
    return values[i]

"""Folded networks among hooks, copies, tracers, threads, and forwards that cannot be read."""

import copy
import io
import pickle
import threading

import pytest
import torch
from tests.hf.convnets import Residual, image, net
from tests.hf.folding import RESIDUAL, close, forwards, pair, runs
from torch import nn

import honed


def test_types():
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        plain, fast, x = pair()
        close(fast.to(dtype), plain.to(dtype), x.to(dtype), dtype=dtype)
    plain, fast, x = pair()
    with torch.no_grad(), pytest.raises(RuntimeError):
        fast(x.double())
    with torch.no_grad(), pytest.raises((RuntimeError, ValueError)):
        fast(x[:, :3])


def test_autocast():
    plain, fast, x = pair()
    with torch.no_grad(), torch.autocast("cpu"):
        got, expected = fast(x), plain(x)
    assert got.dtype == expected.dtype
    assert torch.allclose(got.float(), expected.float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("which", ["conv1", "bn1", "relu", "down", "down.1", ""])
def test_hooks_see_single_steps(which):
    plain, fast, x = pair()
    seen = []
    for model in (plain, fast):
        seen.append([])
        model.get_submodule(which).register_forward_hook(
            lambda module, args, out, found=seen[-1]: found.append(out.clone())
        )
    with torch.no_grad():
        assert torch.allclose(fast(x), plain(x), atol=1e-5)
    assert len(seen[0]) == len(seen[1]) > 0
    for got, expected in zip(seen[1], seen[0], strict=True):
        assert torch.allclose(got, expected, atol=1e-5)


def test_hooks_change_values():
    plain, fast, x = pair()
    with torch.no_grad():
        fast(x)
    for model in (plain, fast):
        handle = model.bn1.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    close(fast, plain, x)
    assert runs(fast, x) == (2, 1)
    handle.remove()
    assert runs(fast, x) == (3, 0)
    calls = []
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: calls.append(type(module))
    )
    with torch.no_grad():
        fast(x)
    handle.remove()
    assert honed.nn.BatchNorm2d in calls


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(copied):
    plain, fast, x = pair()
    with torch.no_grad():
        before = fast(x)
        other = copied(fast)
        assert torch.equal(other(x), before) and runs(other, x) == (3, 0)
        other.conv1.weight.zero_()
        other.relu = nn.Identity()
        assert torch.equal(fast(x), before)
    for each in (plain, other):
        with torch.no_grad():
            each.conv1.weight.fill_(0.1)
        each.relu = nn.SiLU()
    close(other, plain, x)


def test_saved_whole():
    plain, fast, x = pair("unreadable")
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    close(torch.load(file, weights_only=False), plain, x)


def test_modes():
    plain, fast, x = pair()
    honed.hone(fast.train())  # while it trains
    assert fast.training and all(module.training for module in fast.modules())
    close(fast.eval(), plain, x)
    assert runs(fast, x) == (3, 0)
    x.requires_grad_()
    assert fast(x).requires_grad
    fast.requires_grad_(False)
    assert fast(x).requires_grad
    assert not fast(x.detach()).requires_grad


def test_dropout_left_on():
    """As those do who sample predictions: only the dropouts train."""
    model = honed.hone(net("classifier"))
    x = image("classifier")
    with torch.no_grad():
        fixed = model(x)
        assert torch.equal(model(x), fixed)
        model[2].train()
        assert not torch.equal(model(x), fixed)
        model.eval()
        assert torch.equal(model(x), fixed)


def test_functional_call():
    plain, fast, x = pair()
    close(fast, plain, x)
    with torch.no_grad():
        weights = {name: p * 1.25 for name, p in plain.named_parameters()}
        got = torch.func.functional_call(fast, weights, (x,))
        assert torch.allclose(got, torch.func.functional_call(plain, weights, (x,)), atol=1e-5)
    close(fast, plain, x)
    stacked = {name: torch.stack((p, p * 2)).detach() for name, p in plain.named_parameters()}
    with torch.no_grad():
        got, expected = (
            torch.vmap(lambda p, model=model: torch.func.functional_call(model, p, (x,)))(stacked)
            for model in (fast, plain)
        )
    assert torch.allclose(got, expected, atol=1e-4)


def test_tracers():
    plain, fast, x = pair()
    with torch.no_grad():
        expected = plain(x)
        traced = torch.jit.trace(fast, x)
        assert torch.allclose(traced(image(RESIDUAL, 2)), plain(image(RESIDUAL, 2)), atol=1e-5)
        torch._dynamo.reset()
        compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
        assert torch.allclose(compiled(x), expected, atol=1e-5)
        graph = torch.fx.symbolic_trace(fast)
        assert torch.allclose(graph(x), expected, atol=1e-5)
        exported = torch.export.export(fast, (x,), strict=False).module()
        assert torch.allclose(exported(x), expected, atol=1e-5)
        fast(x)  # a new plan: torch.compile has left an attribute
    assert runs(fast, x) == (3, 0)


class Options(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.scale, self.sizes = Residual(False), 2.0, [1, 2]

    def forward(self, x, residual=None, *, twice: bool = False):
        y = self.block(x) * self.scale + sum(self.sizes)
        y = y if residual is None else y + residual
        return y * 2 if twice else y


def test_other_ways_to_call():
    plain = Options().eval()
    fast = honed.hone(copy.deepcopy(plain))
    x = torch.randn(1, 6, 5, 5)
    calls = ((x,), {}), ((), {"x": x}), ((x,), {"twice": False}), ((x, None), {}), ((x, x), {})
    with torch.no_grad():
        for args, kwargs in (*calls, ((x,), {"residual": x, "twice": True})):
            assert torch.allclose(fast(*args, **kwargs), plain(*args, **kwargs), atol=1e-5)
        with pytest.raises(TypeError):
            fast()
        with pytest.raises(TypeError):
            fast(x, other=1)
        for model in (plain, fast):
            model.scale = 3.0
        close(fast, plain, x)
        for model in (plain, fast):
            model.sizes.append(4)
        close(fast, plain, x)


class Asks(nn.Module):
    """Forwards that torch.fx would read wrongly or not at all."""

    def __init__(self, way):
        super().__init__()
        self.way, self.conv, self.bn = way, nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.register_buffer("flag", torch.tensor(1.0))
        self.plain = torch.ones(6, 1, 1)

    def forward(self, x):
        y = self.bn(self.conv(x))
        if self.way == "isinstance":
            return y if isinstance(y, torch.Tensor) else y * 2
        if self.way == "buffer":
            return y if self.flag > 0 else y * 2
        if self.way == "attribute":
            return y * self.plain.exp()
        if self.way == "hasattr":
            return y * 2 if hasattr(y, "not_there") else y
        if self.way == "state":
            self.last = y
            return y * 2
        if self.way == "count":
            self.calls = getattr(self, "calls", 0) + 1
            return y * self.calls
        if self.way == "random":
            return y * torch.ones(1)
        return torch.Size(y.shape), y


@pytest.mark.parametrize("way", ["isinstance", "buffer", "attribute", "hasattr", "state", "count", "random"])
def test_what_cannot_be_read(way):
    plain = Asks(way).eval()
    fast = honed.hone(copy.deepcopy(plain))
    x = torch.randn(1, 6, 5, 5)
    for _ in range(2):
        for model in (plain, fast):
            for value in (0.0, 1.0):
                model.flag.fill_(value)
        close(fast, plain, x)
        for model in (plain, fast):
            model.plain.add_(1)
            model.flag.zero_()
        close(fast, plain, x)
    assert way == "hasattr" or not forwards(fast)


def test_report():
    fast = honed.hone(net(RESIDUAL))
    with torch.no_grad():
        fast(image(RESIDUAL))
    rows = {row.module: row for row in honed.report(fast).rows}
    assert rows["conv1"].kernel.endswith("+ batch norm + relu")
    assert rows["conv2"].kernel.endswith("+ batch norm + sum + relu")
    assert rows["bn1"].replaced_by == "part of conv1" and not rows["bn1"].reason
    rows = {row.module: row for row in honed.report(honed.hone(net("two users"))).rows}
    assert "used elsewhere" in rows["bn1"].reason and rows["bn2"].replaced_by == "part of two"
    found = honed.report(honed.hone(net("unreadable")))
    rows = {row.module: row for row in found.rows}
    assert "control flow" in rows["bn"].reason and rows["block.bn1"].replaced_by == "part of block.conv1"
    assert "control flow" in str(found)


def test_int8():
    plain, fast, x = pair(weights="int8")
    with torch.no_grad():
        got, expected = fast(x), plain(x)
    assert (got - expected).abs().max() < 0.05 * expected.abs().max()


def test_threads():
    """Copies make their plans when they first run, whatever other threads do meanwhile."""
    _, fast, x = pair()
    with torch.no_grad():
        expected = fast(x)
    wrong = []

    def work():
        with torch.no_grad():
            for _ in range(5):
                if not torch.equal(copy.deepcopy(fast)(x), expected) or not torch.equal(fast(x), expected):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

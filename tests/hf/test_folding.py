"""hone() on convolutional networks: folded and fused, and torch's values whatever happens after."""

import copy
import io
import pickle
import threading

import pytest
import torch
from tests.hf.convnets import NETS, ONLY_FORWARD, Residual, image, net
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import honed
from honed.fold import Forward
from honed.testing import allowed_error

RESIDUAL = "residual"


def close(fast, plain, *inputs, dtype=torch.float32):
    """Judged by torch's own error against float64; without gradients."""
    wide = copy.deepcopy(plain).double()
    honed.unhone(wide)
    with torch.no_grad():
        got = fast(*(x.clone() for x in inputs))
        own = plain(*(x.clone() for x in inputs))
        exact = wide(*(x.double() for x in inputs))
    assert got.dtype == own.dtype and got.shape == own.shape
    error = (got.double() - exact).abs().max().item()
    # Folding rounds each weight once more than torch does.
    assert error <= 2 * allowed_error(exact, own, dtype), error
    return got


def forwards(model):
    found = [module.__dict__.get("forward") for module in model.modules()]
    return [forward for forward in found if isinstance(forward, Forward)]


def fused(model):
    return [one for forward in forwards(model) for _, one, _ in forward.plan.fused]


def runs(model, *inputs):
    """How many of the model's fused calls a call of it makes in one go, and in steps."""
    counts = {"once": 0, "apart": 0}
    calls = fused(model)
    for one in calls:
        apart = one.apart

        def counted(x, residual, function=apart):
            counts["apart"] += 1
            return function(x, residual)

        one.apart = counted
        own = one._run

        def once(x, residual, function=own):
            y = function(x, residual)
            counts["once"] += y is not None
            return y

        one._run = once
    with torch.no_grad():
        model(*inputs)
    for one in calls:
        del one.apart
        one._run = getattr(one, one._run.__defaults__[0].__name__)
    return counts["once"], counts["apart"]


def pair(name=RESIDUAL, **options):
    plain = net(name)
    return plain, honed.hone(copy.deepcopy(plain), **options), image(name)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_is_torchs(name, format):
    plain, fast, x = pair(name)
    if x.dim() == 4:
        plain, fast, x = (each.to(memory_format=format) for each in (plain, fast, x))
    expected = NETS[name][2]
    assert expected is None or len(fused(fast)) >= expected
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    got = close(fast, plain, x)
    close(fast, plain, image(name, 2))
    assert [*fast.state_dict()] == [*before]
    assert all(torch.equal(value, before[key]) for key, value in fast.state_dict().items())
    assert type(fast) is type(plain)
    with torch.inference_mode():
        assert torch.equal(fast(x.clone()), got)
    honed.unhone(fast)
    assert not forwards(fast) and not any("honed" in key for m in fast.modules() for key in m.__dict__)
    with torch.no_grad():
        assert torch.equal(fast(x.clone()), plain(x.clone()))


@pytest.mark.parametrize("name", NETS)
def test_inputs_change_as_in_torch(name):
    plain, fast, x = pair(name)
    mine, theirs = x.clone(), x.clone()
    with torch.no_grad():
        fast(mine), plain(theirs)
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", [name for name in NETS if name not in ONLY_FORWARD])
def test_training(name):
    plain, fast, x = pair(name)
    with torch.no_grad():
        fast(x)
    grads = []
    for model in (plain.double(), fast.double()):
        for module in model.modules():
            if isinstance(module, (nn.Dropout, nn.Dropout2d)):
                module.p = 0.0
        model.train()
        model(image(name, 3).double()).square().mean().backward()
        torch.optim.SGD(model.parameters(), lr=0.05).step()
        model.eval().zero_grad()
        model(x.double()).square().mean().backward()  # in eval mode, of the parameters themselves
        grads.append([p.grad for p in model.parameters()])
    for (key, one), other in zip(fast.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.allclose(one, other), key
    for one, other in zip(*grads, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other)
    close(fast.float(), plain.float(), x)


def _load(model):
    model.load_state_dict({key: value * 1.5 for key, value in model.state_dict().items()})


def _assign(model):
    model.load_state_dict({key: value * 1.5 for key, value in model.state_dict().items()}, assign=True)


def _step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with torch.enable_grad():
        model(image(RESIDUAL, 4)).square().sum().backward()
    optimizer.step()


def _statistics(model):
    model.train()
    model(image(RESIDUAL, 4))
    model.eval()


def _replace_activation(model):
    model.relu = nn.SiLU()


def _replace_norm(model):
    torch.manual_seed(3)
    model.bn1 = nn.BatchNorm2d(8).eval()
    model.bn1.weight.uniform_(1, 2)


def _replace_conv(model):
    torch.manual_seed(3)
    model.down[0] = nn.Conv2d(6, 8, 3, 2, 1)


def _attribute(model):
    model.down = None
    model.conv1.stride = 1, 1
    model.conv2.weight.data = model.conv2.weight.data[:6]
    for parameter in (model.bn2.weight, model.bn2.bias, model.bn2.running_mean, model.bn2.running_var):
        parameter.data = parameter.data[:6]
    model.bn2.num_features = model.conv2.out_channels = 6


def _forward(model):
    model.bn1.forward = lambda x: x * 2


EDITS = {
    "weight in place": lambda m: m.conv1.weight.mul_(2),
    "one weight": lambda m: m.conv2.weight[0, 0, 0, 0].add_(1),
    "data": lambda m: m.conv1.weight.data.mul_(2),
    "new weight": lambda m: setattr(m.conv1, "weight", nn.Parameter(m.conv1.weight * 2)),
    "new bias": lambda m: setattr(m.conv1, "bias", nn.Parameter(torch.ones(8))),
    "norm's weight": lambda m: m.bn1.weight.mul_(2),
    "norm's bias": lambda m: m.bn2.bias.add_(1),
    "mean": lambda m: m.bn1.running_mean.add_(1),
    "mean's data": lambda m: m.bn1.running_mean.data.add_(1),
    "variance": lambda m: m.down[1].running_var.mul_(3),
    "eps": lambda m: setattr(m.bn1, "eps", 0.5),
    "stride": lambda m: [setattr(c, "stride", (1, 1)) for c in (m.conv1, m.down[0])],
    "statistics": _statistics,
    "no statistics": lambda m: [setattr(m.bn1, n, None) for n in ("running_mean", "running_var")],
    "load_state_dict": _load,
    "load_state_dict(assign=True)": _assign,
    "optimizer": _step,
    "activation replaced": _replace_activation,
    "norm replaced": _replace_norm,
    "convolution replaced": _replace_conv,
    "another way through forward": _attribute,
    "forward replaced": _forward,
    "norm in train mode": lambda m: m.bn1.train(),
    "identity": lambda m: setattr(m, "bn1", nn.Identity()),
    "fused by torch": lambda m: (
        setattr(m, "conv1", torch.nn.utils.fuse_conv_bn_eval(m.conv1, m.bn1)),
        setattr(m, "bn1", nn.Identity()),
    ),
    "parametrized": lambda m: torch.nn.utils.parametrize.register_parametrization(
        m.conv1, "weight", nn.Tanh()
    ),
    "weight norm": lambda m: torch.nn.utils.weight_norm(m.conv2),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edits_are_seen(edit):
    plain, fast, x = pair()
    with torch.no_grad():
        before = close(fast, plain, x)
        for model in (plain, fast):
            EDITS[edit](model)
    if edit == "norm in train mode":  # of the batch's statistics, which move
        with torch.no_grad():
            assert torch.allclose(fast(x), plain(x), atol=1e-5)
            assert torch.allclose(fast.bn1.running_mean, plain.bn1.running_mean)
        return
    if "optimizer" in edit or edit == "statistics":
        plain.load_state_dict(fast.state_dict())
    after = close(fast, plain, x)
    assert edit == "fused by torch" or before.shape != after.shape or not torch.allclose(before, after)


def test_several_edits_in_a_row():
    plain, fast, x = pair()
    for value in range(1, 14):
        for model in (plain, fast):
            model.note = value  # what a forward might read: a new plan, and in the end none
            with torch.no_grad():
                model.bn1.weight.fill_(value)
        close(fast, plain, x)


def test_types():
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        plain, fast, x = pair()
        close(fast.to(dtype), plain.to(dtype), x.to(dtype), dtype=dtype)
    plain, fast, x = pair()
    with torch.no_grad(), pytest.raises(RuntimeError):
        fast(x.double())
    with torch.no_grad(), pytest.raises(RuntimeError):
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
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fast(x.detach())
    assert counter.get_total_flops() > 0


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
    assert rows["conv1"].kernel.endswith("conv + batch norm + relu")
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

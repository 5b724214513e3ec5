"""hone() on convolutional networks: folded and fused, and torch's values, before and after every edit."""

import pytest
import torch
from tests.hf.convnets import NETS, ONLY_FORWARD, image
from tests.hf.folding import RESIDUAL, close, forwards, fused, pair, runs
from torch import nn

import honed

# A sum with what has another shape; a batch norm without statistics.
IN_STEPS = ("broadcast", "classifier")


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
    calls = runs(fast, x.clone())
    assert (calls[0] > 0) != (name == "broadcast") and (calls[1] == 0) != (name in IN_STEPS), calls
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

"""Folded networks whose layers change after hone, and forwards with side effects."""

import copy
import random

import pytest
import torch
from tests.hf.folding import close, forwards, pair, runs
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import honed


class Saves(nn.Module):
    """Keeps what it computes in a container of its own."""

    def __init__(self, saved):
        super().__init__()
        self.conv, self.bn, self.saved = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), saved

    def forward(self, x):
        y = self.bn(self.conv(x))
        if isinstance(self.saved, list):
            self.saved.append(y)
        else:
            self.saved.setdefault("all", []).append(y)
        return y.relu()


@pytest.mark.parametrize("saved", [[], {}, {"all": []}], ids=["list", "dict", "list in a dict"])
def test_a_forward_that_fills_a_container(saved):
    model = Saves(saved).eval()
    before = copy.deepcopy(saved)
    honed.hone(model)
    assert saved == before  # not what reading the forward put there
    x = torch.randn(1, 6, 5, 5)
    with torch.no_grad():
        model(x)
        model(x)
    values = saved if isinstance(saved, list) else saved["all"]
    assert [type(value) for value in values] == [torch.Tensor] * 2


class Draws(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.conv, self.bn, self.draw = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), draw

    def forward(self, x):
        return self.bn(self.conv(x)) * self.draw()


@pytest.mark.parametrize("draw", [random.random, lambda: torch.rand(1).item()], ids=["python", "torch"])
def test_random_numbers_are_drawn_at_each_call(draw):
    model = honed.hone(Draws(draw).eval())
    x = torch.randn(1, 6, 5, 5)
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))


def test_options_of_activations_change():
    plain = nn.Sequential(
        nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.GELU(), nn.Conv2d(6, 6, 1), nn.Hardtanh(0, 6)
    ).eval()
    fast, x = honed.hone(copy.deepcopy(plain)), 3 * torch.randn(2, 6, 9, 9)
    close(fast, plain, x)
    for model in (plain, fast):
        model[2].approximate = "tanh"
    close(fast, plain, x)
    assert runs(fast, x) == (2, 0)
    for model in (plain, fast):
        model[4].min_val = -1.0
    close(fast, plain, x)
    assert runs(fast, x) == (1, 0)


class Aliased(nn.Module):
    """The rectifier stands between a convolution and its norm, and works on the input of both."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.ReLU()

    def forward(self, x):
        y = self.conv(x)
        z = self.relu(x)
        return self.bn(y) + z + x


def test_a_rectifier_turns_in_place():
    plain = Aliased().eval()
    fast, x = honed.hone(copy.deepcopy(plain)), torch.randn(2, 6, 9, 9)
    close(fast, plain, x)
    for model in (plain, fast):
        model.relu.inplace = True
    close(fast, plain, x)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_after_hone(norm):
    plain, fast, x = pair()
    with torch.no_grad():
        fast(x)
    for model in (plain, fast):
        torch.manual_seed(0)
        norm(model.conv1)
        model.eval()
    other = copy.deepcopy(fast)
    with torch.no_grad():
        expected = plain(x)
        assert torch.allclose(fast(x), expected, atol=1e-5)
        honed.unhone(fast)
        assert torch.equal(fast(x), expected)
        assert torch.allclose(other(x), expected, atol=1e-5)
    parametrize.remove_parametrizations(fast.conv1, "weight")
    assert type(fast.conv1) is nn.Conv2d
    parametrize.remove_parametrizations(other.conv1, "weight")
    assert type(other.conv1) is honed.nn.Conv2d


def test_a_class_given_after_hone_stays():
    class Own(nn.Conv2d):
        pass

    _, fast, _ = pair()
    fast.conv1.__class__ = Own
    assert type(honed.unhone(fast).conv1) is Own


@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_folded_values_beyond_float16(layer):
    """The folded bias is -mean / dev, less than -65504; the convolution's results lie around the mean."""
    plain = nn.Sequential(layer(6, 6, 1), nn.BatchNorm2d(6)).eval()
    nn.init.ones_(plain[0].weight)
    nn.init.zeros_(plain[0].bias)
    plain[1].running_mean.fill_(600.0)
    plain[1].running_var.fill_(1e-5)
    plain.half()
    fast, x = honed.hone(copy.deepcopy(plain)), (100 + torch.randn(2, 6, 9, 9) / 10).half()
    close(fast, plain, x, dtype=torch.float16)
    assert runs(fast, x) == (0, 1)
    for model in (plain, fast):
        model[1].running_mean.fill_(0.0)
    with torch.no_grad():
        fast(x)
    assert runs(fast, x) == (1, 0) and len(forwards(fast)) == 1

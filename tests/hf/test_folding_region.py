"""Runs of steps that a folded network makes in one call."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from tests.hf.folding import close, forwards, pair
from torch import nn

import honed
from honed._lib import _core
from honed.models import MobileNetV2, ResNet


def mobile():
    torch.manual_seed(3)
    plain = MobileNetV2(classes=10, width=0.25).eval()
    return plain, honed.hone(copy.deepcopy(plain))


def regions(model):
    return [region for forward in forwards(model) for region in forward.plan.regions]


def in_steps(model, *inputs):
    """The same call without graphs."""
    for region in regions(model):
        region.whole = False
    with torch.no_grad():
        y = model(*inputs)
    for region in regions(model):
        region.whole = True
    return y


def graphs(model):
    return [len([g for g in region.graphs.values() if g is not None]) for region in regions(model)]


LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels last"])
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("make", [mobile, pair], ids=["mobilenet", "residual"])
def test_is_what_the_steps_give(make, batch, layout):
    plain, fast = make()[:2]
    channels = 3 if make is mobile else 6
    x = torch.randn(batch, channels, 64, 48).to(memory_format=layout)
    with torch.no_grad():
        first, again = fast(x), fast(x)
    steps = in_steps(fast, x)
    assert all(graphs(fast))
    assert torch.equal(first, again) and first.stride() == steps.stride()
    if batch == 1:
        assert torch.equal(first, steps)
    close(fast, plain, x)


def test_many_weights():
    """Only the first part of a large network takes images one by one."""
    torch.manual_seed(0)
    plain = ResNet(34, classes=5).eval()
    fast, x = honed.hone(copy.deepcopy(plain)), torch.randn(3, 3, 32, 32)
    assert [region.each for region in regions(fast)] == [True, False]
    close(fast, plain, x)
    assert graphs(fast) == [1, 1]


def test_sizes_change():
    plain, fast = mobile()
    for size in (32, 40, 48, 56, 64, 72, 32):
        close(fast, plain, torch.randn(2, 3, size, 32))
    assert graphs(fast) == [4]  # no more are kept
    assert list(regions(fast)[0].graphs)[-1][0][0] == (3, 32, 32)


def test_types_and_gaps():
    plain, fast = mobile()
    wide = torch.randn(4, 3, 64, 64)
    close(fast, plain, wide[::2])
    close(fast, plain, wide[:, :, ::2, 1:-1])
    close(fast, plain, wide[:1].expand(3, -1, -1, -1))
    with torch.no_grad():
        assert fast(wide[:0]).shape == (0, 10)
        with pytest.raises(Exception, match="type"):
            fast(wide.double())
    close(fast.double(), plain.double(), wide[:2].double(), dtype=torch.float64)


def test_an_image_has_the_same_bits_in_any_batch():
    fast, x = mobile()[1], torch.randn(7, 3, 48, 48)
    with torch.no_grad():
        together = fast(x)
        assert torch.equal(together, torch.cat([fast(one) for one in x.split(1)]))
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            assert torch.equal(fast(x), together)
        finally:
            torch.set_num_threads(before)


def test_results_are_new():
    fast, x = mobile()[1], torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        first = fast(x)
        kept = first.clone()
        fast(x + 1)
        assert torch.equal(first, kept)
        first.zero_()
        assert torch.equal(fast(x), kept)


CHANGES = {
    "a weight, in place": lambda m: m.conv2.weight.mul_(0.5),
    "a weight, past its counter": lambda m: m.conv2.weight.data.mul_(0.5),
    "a new weight": lambda m: setattr(m.conv2, "weight", nn.Parameter(m.conv2.weight * 0.5)),
    "a statistic": lambda m: m.bn1.running_mean.add_(0.5),
    "epsilon": lambda m: setattr(m.bn1, "eps", 0.1),
    "a stride": lambda m: setattr(m.conv2, "dilation", (2, 2)) or setattr(m.conv2, "padding", (2, 2)),
    "a module": lambda m: setattr(m, "relu", nn.SiLU()),
    "a forward": lambda m: setattr(m.bn2, "forward", torch.tanh),
    "a hook": lambda m: m.conv1.register_forward_hook(lambda module, given, y: y + 1),
    "a norm that trains": lambda m: m.bn1.train(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(change):
    plain, fast, x = pair()
    close(fast, plain, x)
    assert all(graphs(fast))
    for model in (plain, fast):
        with torch.no_grad():
            CHANGES[change](model)
    if change == "a norm that trains":  # moves its statistics with each call
        with torch.no_grad():
            assert torch.allclose(fast(x), plain(x), atol=1e-5)
    else:
        close(fast, plain, x)


def test_back_to_what_it_was():
    plain, fast, x = pair()
    close(fast, plain, x)
    handle = fast.conv1.register_forward_hook(lambda module, given, y: y + 1)
    with torch.no_grad():
        assert not torch.allclose(fast(x), plain(x))
    handle.remove()
    close(fast, plain, x)
    assert all(graphs(fast))
    fast.train()
    with torch.no_grad():
        fast(x)
    plain.train()
    with torch.no_grad():
        plain(x)
    close(fast.eval(), plain.eval(), x)


def test_gradients_go_the_old_way():
    plain, fast, x = pair()
    fast(x).sum().backward()
    plain(x).sum().backward()
    for got, expected in zip(fast.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(got.grad, expected.grad, atol=1e-4)


def test_threads_at_once():
    fast = mobile()[1]
    inputs = [torch.randn(1 + i % 3, 3, 32 + 8 * (i % 2), 32) for i in range(8)]
    expected = [in_steps(fast, x) for x in inputs]
    wrong = []

    def work(x, y):
        with torch.no_grad():
            for _ in range(20):
                if not torch.allclose(fast(x), y, atol=1e-5):
                    wrong.append(x.shape)

    threads = [threading.Thread(target=work, args=each) for each in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_is_freed():
    fast, x = mobile()[1], torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        fast(x)
    gone = [weakref.ref(fast), weakref.ref(fast.classifier[1]), weakref.ref(regions(fast)[0])]
    del fast
    gc.collect()
    assert not any(each() for each in gone)


def test_int8_and_half():
    for options, dtype in (({"weights": "int8"}, torch.float32), ({}, torch.bfloat16)):
        _, fast, x = pair(**options)
        fast, x = fast.to(dtype), x.to(dtype)
        with torch.no_grad():
            got = fast(x)
        assert all(graphs(fast)) and torch.equal(got, in_steps(fast, x))


def test_what_a_tape_does_not_know():
    x, y = torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    relu = lambda t: _core.relu(t)  # noqa: E731
    graph = _core.record([x], [], lambda tape: [relu(relu(x))])
    assert torch.equal(graph(x - 2), torch.zeros(1, 3, 4, 4)) and graph(x[..., 1:]) is None
    assert _core.record([x], [], lambda tape: [relu(y)]) is None  # y may be anything
    assert _core.record([x], [], lambda tape: [relu(x), x]) is None  # not made by a step
    assert _core.record([x], [], lambda tape: None) is None
    with pytest.raises(ZeroDivisionError):
        _core.record([x], [], lambda tape: 1 / 0)
    assert torch.equal(_core.relu(x), x)  # no tape any more


def test_an_image_through_a_linear_head():
    torch.manual_seed(1)
    plain = nn.Sequential(
        nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 4)
    ).eval()
    fast, x = honed.hone(copy.deepcopy(plain)), torch.randn(3, 6, 8, 8)
    close(fast, plain, x)
    assert graphs(fast) == [1] and len(regions(fast)[0].steps) == 4

"""honed.nn's layers for images: torch's results, state and manners; never a stale packed weight."""

import copy
import pickle

import pytest
import torch
from tests.nn.conftest import agree, twins

import honed.nn

GENERATOR = torch.Generator().manual_seed(1)
LINE = torch.randn(2, 6, 13, generator=GENERATOR)
IMAGE = torch.randn(2, 6, 9, 11, generator=GENERATOR)
VOLUME = torch.randn(2, 4, 5, 6, 7, generator=GENERATOR)
CASES = {
    "Conv1d": ("Conv1d", (6, 8, 3), {}, LINE),
    "Conv1d, same": ("Conv1d", (6, 8, 4), {"padding": "same", "dilation": 2, "bias": False}, LINE),
    "Conv1d, one line": ("Conv1d", (6, 8, 3), {"stride": 2}, LINE[0]),
    "Conv2d": ("Conv2d", (6, 8, 3), {"padding": 1}, IMAGE),
    "Conv2d, no bias": ("Conv2d", (6, 8, (3, 2)), {"stride": (2, 1), "bias": False}, IMAGE),
    "Conv2d, one image": ("Conv2d", (6, 8, 1), {}, IMAGE[0]),
    "Conv2d, groups": ("Conv2d", (6, 9, 3), {"groups": 3, "dilation": 2, "padding": (2, 0)}, IMAGE),
    "Conv2d, depthwise": ("Conv2d", (6, 12, 3), {"groups": 6, "padding": "valid"}, IMAGE),
    "Conv2d, same": ("Conv2d", (6, 8, (4, 3)), {"padding": "same"}, IMAGE),
    "Conv2d, reflect": ("Conv2d", (6, 8, 3), {"padding": 2, "padding_mode": "reflect"}, IMAGE),
    "Conv2d, replicate": ("Conv2d", (6, 8, 3), {"padding": 1, "padding_mode": "replicate"}, IMAGE),
    "Conv2d, circular": ("Conv2d", (6, 8, 3), {"padding": (1, 2), "padding_mode": "circular"}, IMAGE),
    "Conv3d": ("Conv3d", (4, 6, 3), {"padding": 1, "stride": (1, 2, 1)}, VOLUME),
    "ConvTranspose1d": ("ConvTranspose1d", (6, 4, 4), {"stride": 2, "padding": 1}, LINE),
    "ConvTranspose2d": ("ConvTranspose2d", (6, 4, 2), {"stride": 2}, IMAGE),
    "ConvTranspose2d, groups": (
        "ConvTranspose2d",
        (6, 9, 3),
        {"stride": (2, 1), "output_padding": (1, 0), "groups": 3, "bias": False},
        IMAGE,
    ),
    "ConvTranspose3d": ("ConvTranspose3d", (4, 3, 3), {"dilation": (1, 2, 1), "padding": 1}, VOLUME),
    "BatchNorm1d": ("BatchNorm1d", (6,), {}, LINE),
    "BatchNorm1d, rows": ("BatchNorm1d", (13,), {}, LINE[:, 0]),
    "BatchNorm2d": ("BatchNorm2d", (6,), {}, IMAGE),
    "BatchNorm2d, no weight": ("BatchNorm2d", (6,), {"affine": False, "eps": 1e-2}, IMAGE),
    "BatchNorm2d, no statistics": ("BatchNorm2d", (6,), {"track_running_stats": False}, IMAGE),
    "BatchNorm2d, mean of all": ("BatchNorm2d", (6,), {"momentum": None}, IMAGE),
    "BatchNorm3d": ("BatchNorm3d", (4,), {"momentum": 0.3}, VOLUME),
    "MaxPool1d": ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, LINE),
    "MaxPool2d": ("MaxPool2d", (2,), {}, IMAGE),
    "MaxPool2d, options": ("MaxPool2d", ((3, 2), 2, 1), {"dilation": (2, 1), "ceil_mode": True}, IMAGE),
    "AvgPool1d": ("AvgPool1d", (3, 2, 1), {"count_include_pad": False}, LINE),
    "AvgPool2d": ("AvgPool2d", (2,), {}, IMAGE),
    "AvgPool2d, options": ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "divisor_override": 5}, IMAGE),
    "AdaptiveAvgPool1d": ("AdaptiveAvgPool1d", (4,), {}, LINE),
    "AdaptiveAvgPool2d": ("AdaptiveAvgPool2d", (1,), {}, IMAGE),
    "AdaptiveAvgPool2d, sizes": ("AdaptiveAvgPool2d", ((4, None),), {}, IMAGE),
    "ReLU": ("ReLU", (), {}, IMAGE),
    "ReLU6": ("ReLU6", (), {}, IMAGE * 4),
}
CONVS = {name: case for name, case in CASES.items() if name.startswith("Conv")}


@pytest.mark.parametrize("case", CASES)
def test_is_torchs(case):
    name, args, options, x = CASES[case]
    plain, fast = twins(name, *args, **options)
    assert isinstance(fast, type(plain)) and repr(fast) == repr(plain)
    for gradients in (False, True):
        for training in (True, False):
            plain.train(training), fast.train(training)
            for dtype in (torch.float32, torch.float64):
                agree(plain.to(dtype), fast.to(dtype), x.to(dtype), gradients=gradients)
                for one, other in zip(fast.buffers(), plain.buffers(), strict=True):
                    assert torch.allclose(one, other)
                fast.load_state_dict(plain.state_dict())  # the next type must not see this one's rounding
            plain.float(), fast.float()
    assert fast.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("case", CASES)
def test_manners(case):
    name, args, options, x = CASES[case]
    _, fast = twins(name, *args, **options)
    fast.eval()
    expected = fast(x)
    if x.dim() == 4:
        inside = fast(x.to(memory_format=torch.channels_last))
        assert torch.allclose(inside, expected, atol=1e-5)
    for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(copied) is type(fast)
        assert torch.equal(copied(x), expected)
    torch._dynamo.reset()
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), expected, atol=1e-5)
    meta = copy.deepcopy(fast).to("meta")
    assert meta(x.to("meta")).shape == expected.shape
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(fast))
    assert torch.allclose(traced(x), expected, atol=1e-5)
    seen = []
    fast.register_forward_hook(lambda module, given, out: seen.append(out))
    fast(x)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "name", ["Conv2d", "ConvTranspose2d", "BatchNorm2d", "MaxPool2d", "AvgPool2d", "ReLU6"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(name, dtype):
    _, args, options, x = CASES[name]
    plain, fast = twins(name, *args, **options)
    agree(plain.to(dtype), fast.to(dtype), x.to(dtype), gradients=name != "ConvTranspose2d")
    agree(plain.eval(), fast.eval(), x.to(dtype))


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "ConvTranspose2d", "BatchNorm2d", "MaxPool2d"])
def test_autocast(name):
    _, args, options, x = CASES[name]
    plain, fast = twins(name, *args, **options)
    for given in (x, x.bfloat16()):
        with torch.autocast("cpu"):
            got, expected = fast(given), plain(given)
        assert got.dtype == expected.dtype
        assert torch.allclose(got.float(), expected.float(), rtol=2e-2, atol=4e-2)


def test_running_statistics():
    """Several batches, also of one that is not counted, frozen ones, and a reset."""
    for options in ({}, {"momentum": None}, {"momentum": 0.5, "affine": False}):
        plain, fast = twins("BatchNorm2d", 6, **options)
        for step in range(4):
            x = torch.randn(2, 6, 3, 3) * (step + 1)
            for module in (plain, fast):
                module.train(step != 2)
                if step == 3:
                    module.reset_running_stats()
            agree_inside = torch.allclose(fast(x), plain(x), atol=1e-5)
            assert agree_inside
            for (name, one), other in zip(fast.named_buffers(), plain.buffers(), strict=True):
                assert torch.allclose(one, other, atol=1e-6), name
    with pytest.raises(ValueError, match="expected 4D input"):
        fast(torch.ones(2, 6, 3))
    with pytest.raises(ValueError, match="more than 1 value"):
        fast.train()(torch.ones(1, 6, 1, 1))


def test_indices_and_output_size():
    pool = honed.nn.MaxPool2d(2, return_indices=True)
    got, expected = pool(IMAGE), torch.nn.MaxPool2d(2, return_indices=True)(IMAGE)
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])
    plain, fast = twins("ConvTranspose2d", 6, 4, 3, stride=2)
    for size in ((20, 24), [20, 23], (2, 4, 19, 24)):
        assert torch.allclose(fast(IMAGE, size), plain(IMAGE, output_size=size), atol=1e-5)
    with pytest.raises(ValueError, match="requested an output size"):
        fast(IMAGE, (30, 30))


def test_in_place():
    for name in ("ReLU", "ReLU6"):
        x = IMAGE * 4
        assert getattr(honed.nn, name)(inplace=True)(x) is x
        assert torch.equal(x, getattr(torch.nn, name)()(IMAGE * 4))


EDITS = {
    "in place": lambda m: m.weight.mul_(2),
    "data": lambda m: m.weight.data.mul_(2),
    "a new parameter": lambda m: setattr(m, "weight", torch.nn.Parameter(m.weight * 2)),
    "load_state_dict": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}),
    "bias": lambda m: m.bias.add_(1),
    "no bias": lambda m: setattr(m, "bias", None),
    "another type": lambda m: m.to(torch.bfloat16),
    "stride": lambda m: setattr(m, "stride", tuple(s + 1 for s in m.stride)),
    "parametrized": lambda m: torch.nn.utils.parametrize.register_parametrization(
        m, "weight", torch.nn.Tanh()
    ),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(
    "case", ["Conv1d", "Conv2d, depthwise", "Conv2d, groups", "Conv3d", "ConvTranspose2d"]
)
def test_edits_are_seen(case, edit):
    name, args, options, x = CASES[case]
    plain, fast = twins(name, *args, **options)
    agree(plain, fast, x)
    with torch.no_grad():
        for module in (plain, fast):
            EDITS[edit](module)
    agree(plain, fast, x.to(plain.weight.dtype))


def test_packed_once():
    plain, fast = twins("Conv2d", 6, 8, 3)
    agree(plain, fast, IMAGE)
    before = fast._packed
    agree(plain, fast, IMAGE)
    assert fast._packed is before is not None
    other = honed.nn.Conv2d(6, 8, 3)
    other.weight, other.bias = fast.weight, fast.bias
    agree(plain, other, IMAGE)
    assert other._packed is before and copy.deepcopy(fast)._packed is None


@pytest.mark.parametrize("storage", ["int8", "int4", "bf16"])
def test_storage(storage):
    """Only int8 rounds a convolution's weight."""
    plain, fast = twins("Conv2d", 6, 8, 3)
    fast.storage = storage
    if storage != "int8":
        agree(plain, fast, IMAGE)
        return
    with torch.no_grad():
        got, expected = fast(IMAGE), plain(IMAGE)
    assert (got - expected).abs().max() < 0.03 * expected.abs().max()
    assert torch.allclose(fast(IMAGE), expected, atol=1e-5)  # with gradients: the parameters


def test_refused():
    _, fast = twins("Conv2d", 6, 8, 3)
    with torch.no_grad():
        for wrong in (
            torch.ones(2, 5, 9, 9),
            torch.ones(2, 6, 9, 9).double(),
            torch.ones(6),
            torch.ones(2, 6, 2, 2),
        ):
            with pytest.raises((RuntimeError, ValueError, TypeError)):
                fast(wrong)


def test_lazy_and_synchronised_classes_are_left_alone():
    model = torch.nn.Sequential(torch.nn.LazyConv2d(4, 3), torch.nn.SyncBatchNorm(4), torch.nn.ReLU())
    honed.hone(model.eval())
    assert [type(m) for m in model[:2]] == [torch.nn.LazyConv2d, torch.nn.SyncBatchNorm]
    with torch.no_grad():
        assert model(IMAGE).shape == (2, 4, 7, 9)
    assert type(model[0]) is torch.nn.Conv2d
    with torch.no_grad():
        assert honed.hone(model)(IMAGE).shape == (2, 4, 7, 9)
    assert type(model[0]) is honed.nn.Conv2d

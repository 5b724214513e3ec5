"""A 1x1 convolution and the depthwise one after it in one call, as folded models make it."""

import pytest
import torch
from torch.nn.functional import conv2d

from honed import _core, nn, ops
from honed.fold.fused import Pair
from honed.hf import hone, unhone
from honed.testing import allowed_error, cpu_level

CASES = [  # batch, channels, outputs, size, kernel, stride, padding
    (1, 3, 5, (7, 6), 3, 1, 1),
    (2, 16, 96, (33, 30), 3, 2, 1),
    (1, 24, 40, (130, 113), 3, 1, 1),
    (1, 8, 33, (140, 120), 5, 2, 2),
    (2, 5, 64, (9, 11), 7, 1, 0),
    (0, 4, 8, (5, 5), 3, 1, 1),
    (1, 4, 8, (200, 70), 3, 2, 4),
]


def _operands(case, generator):
    n, c, o, size, k, *_ = case
    values = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    x = values(n, c, *size).contiguous(memory_format=torch.channels_last)
    return x, values(o, c, 1, 1), values(o), values(o, 1, k, k), values(o)


def _plain(x, w, b, v, d, case, residual=None):
    *_, stride, padding = case
    y = conv2d(conv2d(x, w, b).relu().clamp(max=6), v, d, stride, padding, 1, w.shape[0])
    return (y if residual is None else y + residual).relu()


@pytest.mark.parametrize("level", _core.usable_levels())
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("adds", [False, True])
def test_against_two_convolutions(case, level, adds):
    generator = torch.Generator().manual_seed(3)
    x, w, b, v, d = _operands(case, generator)
    *_, stride, padding = case
    own = _plain(x, w, b, v, d, case)
    residual = torch.randn(own.shape, generator=generator) if adds else None
    own = _plain(x, w, b, v, d, case, residual)
    wide = [None if t is None else t.double() for t in (x, w, b, v, d)]
    reference = _plain(*wide, case, None if residual is None else residual.double())
    first = ops.quantize_weight(w, bias=b)
    second = ops.quantize_weight(v, bias=d, groups=w.shape[0])
    numbers = (1, stride, stride, 0, padding, padding, 0, padding, padding, 1, 1, 1, 0, 1)
    results = []
    with cpu_level(level):
        for threads in (1, 2):
            _core.set_num_threads(threads)
            try:
                results.append(_core.conv_depthwise(x, first, 2, second, residual, *numbers))
            finally:
                _core.set_num_threads(0)
    got = results[0]
    assert torch.equal(*results)
    assert got.shape == reference.shape
    if got.numel():
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert (got.double() - reference).abs().max() <= allowed_error(reference, own, torch.float32)


def test_what_does_not_fit_is_refused():
    x = torch.randn(1, 4, 8, 8)
    first = ops.quantize_weight(torch.randn(8, 4, 1, 1))
    second = ops.quantize_weight(torch.randn(8, 1, 3, 3), groups=8)
    numbers = (1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0)
    with pytest.raises(ValueError, match="channels_last"):
        _core.conv_depthwise(x, first, 0, second, None, *numbers)
    last = x.contiguous(memory_format=torch.channels_last)
    with pytest.raises(TypeError, match="float32"):
        _core.conv_depthwise(last.half(), first, 0, second, None, *numbers)
    with pytest.raises(ValueError, match="depthwise"):
        _core.conv_depthwise(last, first, 0, first, None, *numbers)


def test_a_model_joins_them(monkeypatch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.expand = torch.nn.Conv2d(8, 96, 1, bias=False)
            self.norm = torch.nn.BatchNorm2d(96)
            self.depthwise = torch.nn.Conv2d(96, 96, 3, 2, 1, groups=96)

        def forward(self, x):
            return torch.relu(self.depthwise(torch.relu(self.norm(self.expand(x)))))

    torch.manual_seed(0)
    model = Net().eval()
    x = torch.randn(4, 8, 60, 50).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        own, reference = model(x), model.double()(x.double())
        hone(model.float())
        taken = []
        joined = Pair._joined
        monkeypatch.setattr(Pair, "_joined", lambda *args: taken.append(joined(*args)) or taken[-1])
        got = model(x)
        assert taken[-1] is not None
        assert (got.double() - reference).abs().max() <= allowed_error(reference, own, torch.float32)
        model(x.contiguous())
        assert taken[-1] is None  # channels apart: two calls
        seen = []
        handle = model.norm.register_forward_hook(lambda *args: seen.append(args[2]))
        assert torch.allclose(model(x), got, atol=1e-4) and len(seen) == 1
        handle.remove()
        model.depthwise.weight.mul_(2)
        model.depthwise.bias.mul_(2)
        assert torch.allclose(model(x), 2 * got, atol=1e-4)
    assert isinstance(unhone(model).expand, torch.nn.Conv2d) and not isinstance(model.expand, nn.Conv2d)

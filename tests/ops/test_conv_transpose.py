"""conv_transpose beyond its specification: a random grid of geometries, layouts, arguments, refusals."""

import itertools

import numpy as np
import pytest
import torch

from honed import _core, ops
from honed.testing import allowed_error, cpu_level

F = torch.nn.functional
LEVELS = _core.usable_levels()


def _grid(seed, count):
    """Geometries that torch takes, with every kernel, stride, dilation, padding and group in some of them."""
    draw = torch.Generator().manual_seed(seed)

    def pick(low, high, n=1):
        return tuple(torch.randint(low, high + 1, (n,), generator=draw).tolist())

    made = []
    while len(made) < count:
        (n,) = pick(1, 3)
        (groups,) = pick(1, 3)
        kernel, stride, dilation, padding = pick(1, 5, n), pick(1, 4, n), pick(1, 4, n), pick(0, 3, n)
        more = tuple(min(m, max(s, d) - 1) for m, s, d in zip(pick(0, 3, n), stride, dilation, strict=True))
        size = pick(1, 7, n)
        (inputs,), (outputs,), (batch,) = pick(1, 20), pick(1, 20), pick(1, 3)
        x = torch.randn((batch, groups * inputs, *size), generator=draw, dtype=torch.float64)
        w = torch.randn((groups * inputs, outputs, *kernel), generator=draw, dtype=torch.float64)
        b = torch.randn(groups * outputs, generator=draw, dtype=torch.float64)
        out = [
            (c - 1) * s - 2 * p + d * (k - 1) + 1 + m
            for c, s, p, d, k, m in zip(size, stride, padding, dilation, kernel, more, strict=True)
        ]
        if min(out) > 0:
            made.append((n, x, w, b, (stride, padding, more, groups, dilation)))
    return made


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_grid(level, dtype):
    for n, x, w, b, options in _grid(LEVELS.index(level), 30):
        x, w, b = (t.to(dtype) for t in (x, w, b))
        if n > 1 and options[3] == 2:
            x = x.contiguous(memory_format=torch.channels_last if n == 2 else torch.channels_last_3d)
        own = getattr(F, f"conv_transpose{n}d")
        with cpu_level(level):
            y = getattr(ops, f"conv_transpose{n}d")(x, w, b, *options)
        reference = own(x.double(), w.double(), b.double(), *options)
        # torch may be lucky: half an ulp of the largest sum of magnitudes is what any order may lose.
        magnitudes = own(x.double().abs(), w.double().abs(), b.double().abs(), *options)
        unavoidable = torch.finfo(torch.float32).eps / 2 * magnitudes.max().item()
        error = (y.double() - reference).abs().max().item()
        assert y.shape == reference.shape
        assert error <= allowed_error(reference, own(x, w, b, *options), dtype) + unavoidable, options


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_output_has_the_inputs_layout(layout):
    x = torch.randn(2, 8, 5, 6).contiguous(memory_format=layout)
    y = ops.conv_transpose2d(x, torch.randn(8, 6, 3, 3), stride=2)
    assert y.is_contiguous(memory_format=layout)


def test_layouts_and_views_give_the_same_bits():
    x, w = torch.randn(2, 24, 5, 6), torch.randn(24, 20, 3, 3)
    want = ops.conv_transpose2d(x, w, stride=2)
    for x2, w2 in itertools.product(
        (x, x.contiguous(memory_format=torch.channels_last), x.flip(3).clone().flip(3)),
        (w, w.contiguous(memory_format=torch.channels_last), w.transpose(0, 1).contiguous().transpose(0, 1)),
    ):
        assert torch.equal(ops.conv_transpose2d(x2, w2, stride=2), want)


def test_numpy_and_unbatched():
    x, w, b = torch.randn(3, 6), torch.randn(3, 4, 3), torch.randn(4)
    want = F.conv_transpose1d(x, w, b, 2)
    torch.testing.assert_close(ops.conv_transpose1d(x, w, b, 2), want)
    y = ops.conv_transpose1d(x.numpy(), w.numpy(), b.numpy(), 2)
    assert isinstance(y, np.ndarray)
    torch.testing.assert_close(torch.from_numpy(np.ascontiguousarray(y)), want)


def test_empty_batch():
    y = ops.conv_transpose2d(torch.randn(0, 3, 4, 4), torch.randn(3, 5, 2, 2), stride=2)
    assert y.shape == (0, 5, 8, 8)


def test_autocast_casts_as_torch():
    x, w = torch.randn(2, 3, 4, 4), torch.randn(3, 5, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, want = ops.conv_transpose2d(x, w, stride=2), F.conv_transpose2d(x, w, stride=2)
    assert y.dtype == want.dtype == torch.bfloat16
    torch.testing.assert_close(y, want, rtol=2**-7, atol=2**-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride"),
        ({"padding": -1}, "padding"),
        ({"output_padding": 1}, "output_padding"),
        ({"activation": "tanh"}, "activation"),
        ({"groups": 2}, "groups"),
        ({"padding": 4}, "at least 1"),
        ({"bias": torch.zeros(4)}, "bias"),
        ({"residual": torch.zeros(1, 5, 2, 2)}, "residual"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        ops.conv_transpose2d(torch.zeros(1, 3, 4, 4), torch.zeros(3, 5, 2, 2), **options)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "layouts", list(itertools.product((torch.contiguous_format, torch.channels_last), repeat=2))
)
def test_images_of_one_pixel(level, layouts):
    x, w, b = torch.randn(5, 20, 1, 1), torch.randn(20, 9, 3, 4), torch.randn(9)
    x, w = (t.contiguous(memory_format=layout) for t, layout in zip((x, w), layouts, strict=True))
    for bias in (b, None):
        with cpu_level(level):
            y = ops.conv_transpose2d(x, w, bias)
        reference = F.conv_transpose2d(x.double(), w.double(), None if bias is None else b.double())
        unavoidable = (
            torch.finfo(torch.float32).eps / 2 * F.conv_transpose2d(x.abs(), w.abs(), b.abs()).max().item()
        )
        found = F.conv_transpose2d(x, w, bias)
        assert (y.double() - reference).abs().max().item() <= allowed_error(
            reference, found, x.dtype
        ) + unavoidable

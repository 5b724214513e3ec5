"""3 x 3 convolutions by Winograd's products: shapes, borders, layouts and types, and how large errors are."""

import contextlib

import numpy as np
import pytest
import torch

from honed import _core, ops
from honed.testing import cpu_level

F = torch.nn.functional
LEVELS = _core.usable_levels()
BORDERS = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
ACTIVATIONS = {"none": lambda y: y, "relu": F.relu, "relu6": F.relu6, "silu": F.silu, "gelu": F.gelu}
U = 2.0**-24


@contextlib.contextmanager
def winograd(tile):
    """Every convolution that this way can do takes it, with tiles of so many outputs a side; 0: none does."""
    _core.set_winograd(tile)
    try:
        yield
    finally:
        _core.set_winograd(-1)


def _transforms(tile):
    """A^T, G and B^T of interpolation at the points and infinity."""
    points = [0.0, 1.0, -1.0] if tile == 2 else [0.0, 0.625, -0.625, 1.5, -1.5]
    n = tile + 2
    a, g, b = np.zeros((n, tile)), np.zeros((n, 3)), np.zeros((n, n))
    for i, p in enumerate(points):
        others = [q for q in points if q != p]
        a[i] = [p**j for j in range(tile)]
        g[i] = np.array([1, p, p * p]) / np.prod([p - q for q in others])
        b[i, : n - 1] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = np.poly(points)[::-1]
    return a.T, g, b


def _bound(padded, w, tile):
    """ops/_winograd.h: what an output's error is at most, for exact inputs with their border."""
    a, g, b = _transforms(tile)
    n, channels, height, width = padded.shape
    down, across = -(-(height - 2) // tile), -(-(width - 2) // tile)
    whole = F.pad(padded, (0, across * tile + 2 - width, 0, down * tile + 2 - height)).numpy()
    d = np.lib.stride_tricks.sliding_window_view(whole, (tile + 2, tile + 2), (2, 3))[:, :, ::tile, ::tile]
    v = np.abs(b) @ np.abs(d) @ np.abs(b).T
    u = np.abs(g @ w.numpy() @ g.T)
    y = np.abs(a) @ np.einsum("nchwij,ocij->nohwij", v, u, optimize=True) @ np.abs(a).T
    y = y.transpose(0, 1, 2, 4, 3, 5).reshape(n, w.shape[0], down * tile, across * tile)
    y = torch.from_numpy(np.ascontiguousarray(y[:, :, : height - 2, : width - 2]))
    return (min(channels, 64) + channels / 64 + 24) * U * y


def _padded(x, top, bottom, left, right, border):
    return F.pad(x, (left, right, top, bottom), mode=BORDERS[border]) if len(x) else x


def _view(x, kind):
    """The same numbers: contiguous, channels side by side, or neither."""
    if kind == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if kind == "rows_apart":
        return torch.cat([x, x + 1], 2)[:, :, : x.shape[2]]
    if kind == "channels_apart":
        return torch.stack([x, x + 1], 4).permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4)[..., 0]
    if kind == "backwards":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return x


def _grid(seed, count):
    """Geometries and epilogues; every choice is in some of them."""
    draw = np.random.default_rng(seed)
    for i in range(count):
        border = str(draw.choice(list(BORDERS)))
        height, width = int(draw.integers(1, 20)), int(draw.integers(1, 24))
        most = {"reflect": (height - 1, width - 1), "circular": (height, width)}.get(border, (2, 2))
        pad = [int(draw.integers(0, min(2, most[j // 2]) + 1)) for j in range(4)]
        if height + pad[0] + pad[1] < 3 or width + pad[2] + pad[3] < 3:
            continue
        channels, outputs = (int(draw.integers(1, 71)) for _ in range(2))
        yield (
            (int(draw.choice([0, 1, 3])) if i % 5 else 1, channels, height, width),
            (outputs, channels, 3, 3),
            pad,
            border,
            str(draw.choice(["contiguous", "channels_last", "rows_apart", "channels_apart", "backwards"])),
            str(draw.choice(list(ACTIVATIONS))),
            bool(draw.integers(2)),
            bool(draw.integers(2)),
        )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tile", [2, 4])
def test_grid(tile, dtype, level):
    for x_shape, w_shape, pad, border, view, activation, biased, added in _grid(LEVELS.index(level), 24):
        torch.manual_seed(sum(x_shape))
        x, w = torch.randn(x_shape).to(dtype), torch.randn(w_shape).to(dtype)
        b = torch.randn(w_shape[0]).to(dtype) if biased else None
        padded = _padded(x.double(), *pad, border)
        if not len(x):
            padded = torch.zeros(0, x_shape[1], x_shape[2] + pad[0] + pad[1], x_shape[3] + pad[2] + pad[3])
        plain = F.conv2d(padded.double(), w.double())
        residual = _view(torch.randn(plain.shape).to(dtype), view) if added else None
        bias = b.double().view(-1, 1, 1) if biased else torch.zeros(1, dtype=torch.float64)
        more = bias + (residual.double() if added else 0)
        want = ACTIVATIONS[activation](plain + more)
        with winograd(tile), cpu_level(level):
            y = ops.conv2d(
                _view(x, view),
                w,
                b,
                padding=((pad[0], pad[1]), (pad[2], pad[3])),
                padding_mode=border,
                activation=activation,
                residual=residual,
            )
        assert y.shape == want.shape
        if not len(x):
            continue
        sums = plain.abs() + bias.abs() + (residual.double().abs() if added else 0)
        # Activations are at most 1.13 steep and add a few roundings of their own.
        most = 1.2 * (_bound(padded, w.double(), tile) + 8 * U * sums)
        if dtype != torch.float32:
            most += torch.finfo(dtype).eps / 2 * (want.abs() + most) + torch.finfo(dtype).tiny / 2
        error = (y.double() - want).abs()
        assert (error <= most).all(), (x_shape, w_shape, pad, border, view, activation, biased, added)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("channels", [8, 64, 384])
@pytest.mark.parametrize(("tile", "times"), [(2, 3), (4, 8)])
def test_error_beside_torchs(tile, times, channels, rectified):
    torch.manual_seed(channels)
    x = torch.randn(1, channels, 28, 28)
    x = x.relu() if rectified else x
    w = torch.randn(64, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
    want = F.conv2d(x.double(), w.double(), padding=1)
    own = (F.conv2d(x, w, padding=1).double() - want).abs().max()
    for level in LEVELS:
        with winograd(tile), cpu_level(level):
            error = (ops.conv2d(x, w, padding=1).double() - want).abs()
        assert error.max() <= times * own, level
        assert (error <= _bound(F.pad(x.double(), (1, 1, 1, 1)), w.double(), tile)).all(), level


# One block for all threads, blocks of their own, and weights that one thread reads for many tiles.
@pytest.mark.parametrize("shape", [(1, 40, 40, 9), (2, 24, 40, 45), (1, 400, 300, 24)], ids=str)
@pytest.mark.parametrize("tile", [2, 4])
def test_the_same_bits_from_threads_layouts_and_packed_weights(tile, shape):
    n, channels, outputs, side = shape
    x, w, b = torch.randn(n, channels, side, side), torch.randn(outputs, channels, 3, 3), torch.randn(outputs)
    residual = torch.randn(n, outputs, side, side)
    geometry = (1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, False)
    with winograd(tile):
        want = ops.conv2d(x, w, b, padding=1, residual=residual, activation="relu")
        packed = _core.pack_conv_weight(w, b, 1, False)
        assert torch.equal(_core.conv_packed(x, packed, residual, *geometry), want)
        for view in ("channels_last", "rows_apart"):
            y = ops.conv2d(_view(x, view), w, b, padding=1, residual=_view(residual, view), activation="relu")
            assert torch.equal(y, want)
        for threads in (1, 2):
            _core.set_num_threads(threads)
            try:
                y = ops.conv2d(x, w, b, padding=1, residual=residual, activation="relu")
            finally:
                _core.set_num_threads(0)
            assert torch.equal(y, want)


def test_chosen_where_it_is_cheaper_and_not_forbidden():
    def ways(channels, side, **options):
        torch.manual_seed(0)
        x, w = torch.randn(1, channels, side, side), torch.randn(channels, channels, 3, 3)
        chosen = ops.conv2d(x, w, **options)
        found = []
        for tile in (0, 2, 4):
            with winograd(tile):
                if torch.equal(ops.conv2d(x, w, **{**options, "exact": False}), chosen):
                    found.append(tile)
        return found

    assert ways(64, 56, padding=1) == [4]
    assert ways(64, 56, padding=1, exact=True) == [0]
    assert ways(4, 8, padding=1) == [0]
    # These it cannot do: the tile asked for changes nothing.
    assert ways(64, 56, stride=2) == ways(64, 56, dilation=2) == [0, 2, 4]


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tile", [2, 4])
def test_reads_nothing_outside_its_operands(tile, dtype, at_end, guarded):
    for channels, outputs, height, width, padding in (
        (5, 3, 9, 7, 0),
        (16, 33, 12, 12, 1),
        (35, 16, 3, 19, 2),
    ):
        for view in ("contiguous", "channels_last", "channels_apart"):
            x = torch.randint(-2, 3, (2, channels, height, width)).to(dtype)
            w = torch.randint(-2, 3, (outputs, channels, 3, 3)).to(dtype)
            want = F.conv2d(x.double(), w.double(), padding=padding)
            b, residual = torch.ones(outputs, dtype=dtype), torch.ones(want.shape, dtype=dtype)
            operands = [guarded(_view(t, view), at_end) for t in (x, residual)]
            for level in LEVELS:
                with winograd(tile), cpu_level(level):
                    y = ops.conv2d(
                        operands[0],
                        guarded(w, at_end),
                        guarded(b, at_end),
                        padding=padding,
                        residual=operands[1],
                    )
                rounding = torch.finfo(dtype).eps * (want + 2).abs()
                padded = F.pad(x.double(), (padding,) * 4)
                assert ((y - (want + 2)).abs() <= rounding + _bound(padded, w.double(), tile)).all(), level

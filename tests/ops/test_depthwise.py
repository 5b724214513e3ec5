"""Depthwise convolution: every channel by itself, any multiplier, kernel, border, layout and level."""

import itertools

import numpy as np
import pytest
import torch

from honed import _core, ops
from honed.ops._conv import BORDERS
from honed.testing import allowed_error, cpu_level

# The others take these kernels from the level below.
OWN_LEVELS = [level for level in _core.usable_levels() if level in ("baseline", "avx2", "avx512")]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FUNCTIONS = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
LAYOUTS = ("contiguous", "channels_last", "apart")


def laid_out(tensor, layout):
    """The same values with channels fastest, or every third element of wider rows."""
    if layout == "channels_last":
        order = (0, *range(2, tensor.dim()), 1)
        back = (0, tensor.dim() - 1, *range(1, tensor.dim() - 1))
        return tensor.permute(order).contiguous().permute(back)
    if layout == "apart":
        wide = tensor.new_zeros(*tensor.shape[:-1], 3 * tensor.shape[-1])
        return wide[..., ::3].copy_(tensor)
    return tensor.contiguous()


def bordered(x, pads, border):
    """x with its border, as plain indexing has it."""
    for d, (before, after) in enumerate(pads, 2):
        index = np.arange(x.shape[d])
        mode = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[border]
        index = np.pad(index, (before, after), mode, **({"constant_values": -1} if border == "zeros" else {}))
        index = torch.from_numpy(index)
        shape = [-1 if i == d else 1 for i in range(x.dim())]
        x = x.index_select(d, index.clamp(min=0)) * (index >= 0).to(x.dtype).view(shape)
    return x


def plain(x, w, b, pads, stride, dilation, border):
    own = getattr(torch.nn.functional, f"conv{x.dim() - 2}d")
    return own(bordered(x, pads, border), w, b, stride, 0, dilation, x.shape[1])


def compare(x, w, b, pads, stride=1, dilation=1, border="zeros", **more):
    n = x.dim() - 2
    expected = plain(x.double(), w.double(), b if b is None else b.double(), pads, stride, dilation, border)
    torchs = plain(x, w, b, pads, stride, dilation, border)
    got = FUNCTIONS[n](x, w, b, stride, pads, dilation, x.shape[1], padding_mode=border, **more)
    assert got.shape == expected.shape
    error = (got.double() - expected).abs().max().item() if got.numel() else 0.0
    assert error <= (allowed_error(expected, torchs, x.dtype) if got.numel() else 0.0)
    return got


@pytest.mark.parametrize("level", OWN_LEVELS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_kernels_and_strides(stride, layout, level):
    kernels = [*((k, k) for k in range(1, 8)), (3, 5), (1, 7)]
    for kernel, (channels, size) in itertools.product(kernels, ((5, (7, 9)), (37, (15, 14)), (16, (8, 33)))):
        x = laid_out(torch.randn(2, channels, *size), layout)
        w, b = torch.randn(channels, 1, *kernel), torch.randn(channels)
        pads = tuple((k // 2, (k - 1) // 2) for k in kernel)
        with cpu_level(level):
            compare(x, w, b, pads, stride)


@pytest.mark.parametrize("level", OWN_LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_borders_dilations_multipliers(layout, border, dtype, level):
    cases = itertools.product((1, 2, 3), (1, 2), ((0, 0), (1, 2), (3, 0)))
    with cpu_level(level):
        for i, (multiplier, dilation, pad) in enumerate(cases):
            x = laid_out(torch.randn(1 + i % 2, 19, 11, 13, dtype=dtype), layout)
            w = torch.randn(19 * multiplier, 1, 3, 3 + i % 3, dtype=dtype)
            compare(x, w, None, (pad, (pad[1], pad[0])), 1 + i % 2, dilation, border)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [1, 3])
def test_one_and_three_dimensions(n, layout):
    sizes, kernels = {1: ((70,), (3000,)), 3: ((5, 6, 7), (3, 9, 20))}[n], {1: (3, 9, 31), 3: (1, 2, 3)}[n]
    for level, size, kernel in itertools.product(OWN_LEVELS, sizes, kernels):
        x = laid_out(torch.randn(2, 21, *size), layout)
        w = torch.randn(21, 1, *(kernel,) * n)
        with cpu_level(level):
            for border in ("zeros", "replicate"):
                compare(x, w, torch.randn(21), ((kernel // 2, kernel // 2),) * n, 1, 1, border)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "gelu", "silu"])
def test_residual_comes_before_the_activation(activation, layout):
    x, residual = (laid_out(3 * torch.randn(2, 20, 9, 10), layout) for _ in range(2))
    w, b = torch.randn(20, 1, 3, 3), torch.randn(20)
    more = {"residual": residual, "activation": activation}
    sums = plain(x.double(), w.double(), b.double(), ((1, 1), (1, 1)), 1, 1, "zeros") + residual.double()
    torchs = plain(x, w, b, ((1, 1), (1, 1)), 1, 1, "zeros") + residual
    finish = {"none": lambda v: v}.get(activation) or getattr(torch.nn.functional, activation)
    for level in OWN_LEVELS:
        with cpu_level(level):
            got = ops.conv2d(x, w, b, 1, 1, 1, 20, **more)
        error = (got.double() - finish(sums)).abs().max().item()
        assert error <= allowed_error(finish(sums), finish(torchs), x.dtype)


def test_empty_batch():
    y = ops.conv2d(torch.empty(0, 8, 5, 5), torch.randn(8, 1, 3, 3), None, 1, 1, 1, 8)
    assert y.shape == (0, 8, 5, 5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 2), (4, 1)])
def test_bits_do_not_depend_on_threads(kernel, stride, layout):
    x = laid_out(torch.randn(1, 48, 30, 40), layout)
    w = torch.randn(48, 1, kernel, kernel)
    results = []
    for threads in (1, 2):
        _core.set_num_threads(threads)
        try:
            results.append(ops.conv2d(x, w, None, stride, kernel // 2, 1, 48))
        finally:
            _core.set_num_threads(0)
    assert torch.equal(*results)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_nothing_outside(layout, dtype, at_end, guarded):
    for channels, size in ((3, (4, 5)), (17, (7, 7)), (33, (9, 16)), (16, (14, 35))):
        for kernel, stride in itertools.product((1, 3, 5, 7), (1, 2)):
            x = guarded(laid_out(torch.randint(-3, 4, (2, channels, *size)).to(dtype), layout), at_end)
            w = guarded(torch.randint(-3, 4, (channels, 1, kernel, kernel)).to(dtype), at_end)
            pads = ((kernel // 2, kernel // 2),) * 2
            expected = plain(x.double(), w.double(), None, pads, stride, 1, "zeros").to(dtype)
            for level in OWN_LEVELS:
                with cpu_level(level):
                    got = ops.conv2d(x, w, None, stride, kernel // 2, 1, channels)
                assert torch.equal(got, expected), (level, channels, kernel, stride)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients(dtype, border, layout):
    for (kernel, stride, dilation), multiplier in itertools.product(
        ((3, 1, 1), (5, 2, 1), (2, 3, 1), (3, 2, 2), (1, 2, 1)), (1, 2)
    ):
        x = laid_out(torch.randn(2, 18, 11, 12, dtype=dtype), layout)
        w = torch.randn(18 * multiplier, 1, kernel, kernel, dtype=dtype)
        pads = ((1, 2), (2, 0))

        def gradients(run, kind, x=x, w=w):
            leaves = [t.to(kind).detach().requires_grad_() for t in (x, w)]
            y = run(*leaves)
            torch.manual_seed(3)
            return torch.autograd.grad(y, leaves, torch.randn(y.shape, dtype=dtype).to(kind))

        shape = (pads, stride, dilation, border)
        exact = gradients(lambda x, w, s=shape: plain(x, w, None, *s), torch.float64)
        torchs = gradients(lambda x, w, s=shape: plain(x, w, None, *s), dtype)
        ours = gradients(
            lambda x, w, s=stride, d=dilation, p=pads: ops.conv2d(
                x, w, None, s, p, d, 18, padding_mode=border
            ),
            dtype,
        )
        for want, theirs, got in zip(exact, torchs, ours, strict=True):
            assert (got.double() - want).abs().max().item() <= allowed_error(want, theirs, dtype)

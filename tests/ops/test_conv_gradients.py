"""Gradients of convolutions: geometries, borders, layouts, grads of any strides, frozen operands, threads."""

import pytest
import torch

from honed import _core, ops
from honed.ops._conv import geometry, torchs_conv
from honed.testing import allowed_error, cpu_level

F = torch.nn.functional
LEVELS = _core.usable_levels()


def _reference(x, w, b, *options, border="zeros"):
    n = x.dim() - 2
    return torchs_conv(x, w, b, geometry("conv", n, w.shape[2:], *options, border))


def _honed(x, w, b, *options, border="zeros"):
    return getattr(ops, f"conv{x.dim() - 2}d")(x, w, b, *options, padding_mode=border)


def _gradients(function, tensors, grad, *options, **more):
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = function(*leaves, *options, **more)
    return torch.autograd.grad(y, leaves, grad.to(y.dtype))


def _check(tensors, grad, *options, dtype=torch.float32, **more):
    """Every gradient, within twice torch's error and what no order of summation can avoid."""
    cast = [t.to(dtype) for t in tensors]
    got = _gradients(_honed, cast, grad, *options, **more)
    own = _gradients(_reference, cast, grad, *options, **more)
    wide = [t.double() for t in cast]
    grad = grad.to(dtype).double()
    want = _gradients(_reference, wide, grad, *options, **more)
    sizes = _gradients(_reference, [t.abs() for t in wide], grad.abs(), *options, **more)
    for g, o, r, size in zip(got, own, want, sizes, strict=True):
        unavoidable = torch.finfo(torch.float32).eps / 2 * size.abs().max().item() if r.numel() else 0
        assert g.shape == r.shape
        error = (g.double() - r).abs().max().item() if r.numel() else 0
        assert error <= allowed_error(r, o, dtype) + unavoidable, (options, more)


def _grid(seed, count):
    draw = torch.Generator().manual_seed(seed)

    def pick(low, high, n=1):
        return tuple(torch.randint(low, high + 1, (n,), generator=draw).tolist())

    made = []
    while len(made) < count:
        (n,), (groups,), (batch,) = pick(1, 3), pick(1, 3), pick(1, 3)
        kernel, stride, dilation = pick(1, 5, n), pick(1, 4, n), pick(1, 3, n)
        padding = tuple(pick(0, 3, 2) for _ in range(n))
        size = pick(4, 12, n)
        (inputs,), (outputs,) = pick(1, 40), pick(1, 40)
        x = torch.randn((batch, groups * inputs, *size), generator=draw, dtype=torch.float64)
        w = torch.randn((groups * outputs, inputs, *kernel), generator=draw, dtype=torch.float64)
        b = torch.randn(groups * outputs, generator=draw, dtype=torch.float64)
        out = [s + sum(p) - d * (k - 1) for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)]
        if min(out) > 0:
            made.append((x, w, b, (stride, padding, dilation, groups)))
    return made


@pytest.mark.parametrize("border", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("level", LEVELS)
def test_grid(level, border):
    for i, (x, w, b, options) in enumerate(_grid(LEVELS.index(level), 9)):
        with torch.no_grad():
            y = _reference(x, w, b, *options, border=border)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        dtype = (torch.float32, torch.float64, torch.bfloat16)[i % 3]
        if x.dim() == 4 and i % 2:
            x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
        with cpu_level(level):
            _check((x, w, b), grad, *options, dtype=dtype, border=border)


@pytest.mark.parametrize("shape", [(3, 20, 70, 9), (2, 1, 6, 40), (40, 3, 16, 6), (1, 5, 3, 90)])
def test_many_steps_and_few_channels(shape):
    batch, inputs, outputs, size = shape
    x, w = torch.randn(batch, inputs, size, size + 3), torch.randn(outputs, inputs, 3, 5)
    grad = torch.randn(batch, outputs, size, size + 1)
    _check((x, w, torch.randn(outputs)), grad, 1, 1, 1, 1)


def test_long_rows():
    x, w, b = torch.randn(2, 4, 20000), torch.randn(5, 4, 3), torch.randn(5)
    _check((x, w, b), torch.randn(2, 5, 20000), 1, 1, 1, 1)


def test_grads_of_any_strides():
    x, w, b = torch.randn(2, 6, 9, 8), torch.randn(5, 6, 3, 3), torch.randn(5)
    shape = (2, 5, 7, 6)
    dense = torch.randn(shape)
    for grad in (
        dense.contiguous(memory_format=torch.channels_last),
        torch.randn(5, 1, 1).expand(shape),
        torch.ones(()).expand(shape),
        torch.randn(2, 5, 7, 13)[..., 1::2],
        dense.transpose(0, 1).contiguous().transpose(0, 1),
    ):
        got, want = (_gradients(_honed, (x, w, b), each, 1, 0) for each in (grad, grad.contiguous()))
        for g, r in zip(got, want, strict=True):
            assert torch.equal(g, r)


def test_layouts_of_gradients():
    x = torch.randn(2, 8, 9, 8).contiguous(memory_format=torch.channels_last)
    w = torch.randn(6, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    grad = torch.randn(2, 6, 7, 6).contiguous(memory_format=torch.channels_last)
    dx, dw, _ = _gradients(_honed, (x, w, torch.randn(6)), grad, 1, 0)
    assert dx.is_contiguous(memory_format=torch.channels_last)
    assert dw.stride() == w.stride()


def test_empty_batch():
    tensors = (torch.randn(0, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.randn(4))
    dx, dw, db = _gradients(_honed, tensors, torch.randn(0, 4, 4, 4), 1, 0)
    assert dx.shape == tensors[0].shape
    assert not dw.any()
    assert not db.any()


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_frozen_operands(frozen):
    tensors = [torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.randn(4)]
    want = _gradients(_honed, tensors, torch.ones(2, 4, 4, 4), 1, 0)
    for i, t in enumerate(tensors):
        t.requires_grad_(i not in frozen)
    _honed(*tensors, 1, 0).sum().backward()
    for i, (t, w) in enumerate(zip(tensors, want, strict=True)):
        assert (t.grad is None) if i in frozen else torch.equal(t.grad, w)


def test_activation_and_residual_are_differentiated():
    x, w, r = (torch.randn(s, dtype=torch.float64) for s in [(2, 3, 6, 6), (4, 3, 3, 3), (2, 4, 4, 4)])
    found = []
    for function in (
        lambda x, w, r: ops.conv2d(x, w, activation="silu", residual=r),
        lambda x, w, r: F.silu(F.conv2d(x, w) + r),
    ):
        leaves = [t.clone().requires_grad_() for t in (x, w, r)]
        found.append(torch.autograd.grad(function(*leaves).square().sum(), leaves))
    for g, want in zip(*found, strict=True):
        torch.testing.assert_close(g, want)


@pytest.mark.parametrize("border", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradcheck(border, groups):
    draw = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_()
        for s in [(2, 2, 4, 5), (2, 2 // groups, 3, 2), (2,)]
    ]
    options = ((2, 1), ((1, 2), (1, 0)), (1, 2), groups)
    function = lambda *t: _honed(*t, *options, border=border)  # noqa: E731
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


def test_second_derivatives_of_a_frozen_weight():
    x, w = torch.randn(1, 2, 5, dtype=torch.float64), torch.randn(3, 2, 3, dtype=torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: ops.conv1d(x, w).square(), x)


@pytest.mark.parametrize("shape", [(4, 3, 20, 9), (2, 1, 6, 40), (1, 70, 40, 12), (2, 64, 64, 30)])
def test_same_bits_on_any_thread_count(shape):
    batch, inputs, outputs, size = shape
    tensors = torch.randn(batch, inputs, size, size), torch.randn(outputs, inputs, 3, 3), torch.randn(outputs)
    grad = torch.randn(batch, outputs, size, size)
    found = []
    for threads in (1, 2):
        _core.set_num_threads(threads)
        try:
            found.append(_gradients(_honed, tensors, grad, 1, 1))
        finally:
            _core.set_num_threads(0)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_compiles_as_one_graph():
    tensors = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.randn(4)
    grad = torch.randn(2, 4, 8, 8)
    for border in ("zeros", "reflect"):
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda x, w, b, border=border: _honed(x, w, b, 1, 2, border=border),
            backend="aot_eager",
            fullgraph=True,
        )
        got, want = (
            _gradients(function, tensors, grad)
            for function in (compiled, lambda x, w, b, border=border: _honed(x, w, b, 1, 2, border=border))
        )
        for g, r in zip(got, want, strict=True):
            assert torch.equal(g, r)


def test_refusals():
    x, w, g = torch.zeros(1, 2, 5, 5), torch.zeros(3, 2, 3, 3), torch.zeros(1, 4, 3, 3)
    ones, zeros = (1, 1, 1), (0, 0, 0)
    with pytest.raises(ValueError, match="expected those of a convolution"):
        _core.conv_weight_gradient(g, x, w, *ones, *zeros, *ones, 1, 0, True, True)
    with pytest.raises(TypeError, match="expected one type"):
        _core.conv_weight_gradient(g[:, :3].double(), x, w, *ones, *zeros, *ones, 1, 0, True, True)

"""What batch_norm's spec does not cover: running statistics, mixed types, large means, layouts, refusals."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from honed import _core, ops
from honed.ops._torch.batch_norm import composed
from honed.testing import allowed_error, cpu_level

LAST = torch.channels_last
LEVELS = _core.usable_levels()


def _values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
def test_running_statistics(level, layout, momentum):
    x = (_values(3, 5, 7, 6) * 2 + 3).to(memory_format=layout)
    mean, var = _values(5, seed=1), _values(5, seed=2).abs()
    want_mean, want_var = mean.double(), var.double()
    own_mean, own_var = mean.clone(), var.clone()
    F.batch_norm(x.double(), want_mean, want_var, None, None, True, momentum)
    F.batch_norm(x, own_mean, own_var, None, None, True, momentum)
    version = mean._version
    with cpu_level(level):
        ops.batch_norm(x, mean, var, None, None, True, momentum)
    assert mean._version > version  # autograd and packed weights see the change
    for got, want, own in ((mean, want_mean, own_mean), (var, want_var, own_var)):
        assert (got.double() - want).abs().max() <= allowed_error(want, own, torch.float32)


def test_statistics_without_gradients_and_with_them_are_the_same():
    x, w = _values(3, 5, 7), torch.ones(5)
    found = []
    for parameter in (w, w.clone().requires_grad_()):
        mean, var = torch.zeros(5), torch.ones(5)
        ops.batch_norm(x, mean, var, parameter, training=True)
        assert not mean.requires_grad
        found.append((mean, var))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(40, 3), (4, 3, 50, 30)])
@pytest.mark.parametrize("last", [False, True])
def test_a_mean_far_from_zero(level, dtype, shape, last):
    x = (_values(*shape) * 3 + 1000).to(dtype)
    if last and x.dim() == 4:
        x = x.to(memory_format=LAST)
    with cpu_level(level):
        got = ops.batch_norm(x, None, None, training=True)
    want, own = (F.batch_norm(t, None, None, training=True) for t in (x.double(), x))
    assert (got.double() - want).abs().max() <= allowed_error(want, own, dtype)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_vectors_beside_a_narrow_input(dtype, training):
    x = _values(3, 5, 7, 6).to(dtype).requires_grad_()
    w, b = (_values(5, seed=s).requires_grad_() for s in (1, 2))
    found = []
    for op in (ops.batch_norm, F.batch_norm):
        mean, var = _values(5, seed=3), _values(5, seed=4).abs() + 1
        y = op(x, mean, var, w, b, training)
        found.append((y, mean, var, *torch.autograd.grad(y.float().square().sum(), (x, w, b))))
    for got, want in zip(*found, strict=True):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_statistics_are_updated(dtype):
    x = _values(3, 5, 7).to(dtype)
    mean, var = torch.zeros(5, dtype=dtype), torch.ones(5, dtype=dtype)
    want = mean.clone(), var.clone()
    ops.batch_norm(x, mean, var, training=True)
    F.batch_norm(x, *want, training=True)
    for got, own in zip((mean, var), want, strict=True):
        torch.testing.assert_close(got, own)


_SHAPES = [(4, 5), (4, 5, 6), (2, 5, 3, 4), (2, 5, 2, 3, 4), (2, 5, 1, 1)]


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("training", [False, True])
def test_results_lie_as_inputs(shape, training):
    x = _values(*shape)
    turned = x.movedim(1, -1).contiguous().movedim(-1, 1)
    for t in (x, turned, x.transpose(0, 1).contiguous().transpose(0, 1)):
        t = t.detach().requires_grad_()
        got = ops.batch_norm(t, torch.zeros(5), torch.ones(5), training=training, activation="relu")
        torch.testing.assert_close(
            got, F.batch_norm(t, torch.zeros(5), torch.ones(5), training=training).relu()
        )
        (d,) = torch.autograd.grad(got.sum(), t)
        if t is not x and not t.is_contiguous() and t.movedim(1, -1).is_contiguous():
            assert got.stride() == t.stride() and d.stride() == t.stride()
        else:
            assert got.is_contiguous() and d.is_contiguous()


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_operands_of_other_layouts(activation):
    x = _values(2, 5, 3, 4).to(memory_format=LAST).requires_grad_()
    r = _values(2, 5, 3, 4, seed=1).requires_grad_()
    g = _values(2, 5, 3, 4, seed=2)
    got = ops.batch_norm(x, None, None, training=True, activation=activation, residual=r)
    want = composed(x, None, None, None, None, r, True, 0.1, 1e-5, activation)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, (x, r), g), torch.autograd.grad(want, (x, r), g), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_nan_stays(level, activation):
    x = _values(2, 3, 20)
    x[0, 1, 3] = float("nan")
    mean, var = torch.zeros(3), torch.ones(3)
    with cpu_level(level):
        got = ops.batch_norm(x, mean, var, activation=activation)
    want = composed(x, mean, var, None, None, None, False, 0.1, 1e-5, activation)
    torch.testing.assert_close(got, want, equal_nan=True)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_a_gradient_at_infinity_is_torchs(activation):
    x = torch.tensor([[1.0, float("inf")], [2.0, -1.0]], requires_grad=True)
    r = torch.zeros(2, 2, requires_grad=True)
    given = torch.zeros(2), torch.ones(2)
    got = ops.batch_norm(x, *given, activation=activation, residual=r)
    want = composed(x, *given, None, None, r, False, 0.1, 1e-5, activation)
    for a, b in zip(
        torch.autograd.grad(got.sum(), (x, r)), torch.autograd.grad(want.sum(), (x, r)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_an_empty_batch_changes_no_statistics():
    mean, var = torch.zeros(3), torch.ones(3)
    x, w = torch.empty(0, 3, 4, requires_grad=True), torch.ones(3, requires_grad=True)
    y = ops.batch_norm(x, mean, var, w, training=True, activation="relu")
    assert y.shape == x.shape and torch.equal(mean, torch.zeros(3)) and torch.equal(var, torch.ones(3))
    dx, dw = torch.autograd.grad(y.sum(), (x, w))
    assert dx.shape == x.shape and torch.equal(dw, torch.zeros(3))


def test_arrays():
    x = _values(4, 3, 5, 6)
    mean, var, w = _values(3, seed=1), _values(3, seed=2).abs(), _values(3, seed=3)
    for training in (False, True):
        a, b = mean.numpy().copy(), var.numpy().copy()
        m, v = mean.clone(), var.clone()
        got = ops.batch_norm(x.numpy(), a, b, w.numpy(), training=training, activation="relu")
        want = F.batch_norm(x, m, v, w, training=training).relu()
        assert type(got) is np.ndarray
        for one, other in ((got, want), (a, m), (b, v)):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)
    assert ops.batch_norm(np.zeros((0, 3), np.float32), None, None, training=True).shape == (0, 3)


_ZERO, _ONE = torch.zeros(3), torch.ones(3)
_REFUSED = [
    (lambda x: ops.batch_norm(x, None, None), "running_mean is None, expected a tensor"),
    (lambda x: ops.batch_norm(x, _ZERO, None, training=True), "got one of running_mean and running_var"),
    (lambda x: ops.batch_norm(x, _ZERO[:2], _ONE), "batch_norm: running_mean has shape [2], expected [3]"),
    (lambda x: ops.batch_norm(x, _ZERO, _ONE[:2]), "batch_norm: running_var has shape [2], expected [3]"),
    (lambda x: ops.batch_norm(x, _ZERO, _ONE, _ONE[:2]), "batch_norm: weight has shape [2], expected [3]"),
    (lambda x: ops.batch_norm(x, _ZERO, _ONE, bias=_ONE[:2]), "batch_norm: bias has shape [2], expected [3]"),
    (
        lambda x: ops.batch_norm(x, _ZERO[:2], _ONE, training=True),
        "running_mean has shape (2,), expected (3,)",
    ),
    (lambda x: ops.batch_norm(x[0, 0], _ZERO, _ONE), "expected at least 2 dimensions"),
    (lambda x: ops.batch_norm(x, _ZERO, _ONE, residual=x[1:]), "batch_norm: residual has shape [1, 3, 4]"),
    (lambda x: ops.batch_norm(x[:1, :, :1], _ZERO, _ONE, training=True), "expected more than 1 value"),
    (lambda x: ops.batch_norm(x, _ZERO, _ONE, eps=-1.0), "batch_norm: eps is -1.0, expected 0 or more"),
    (
        lambda x: ops.batch_norm(x, _ZERO, _ONE, training=True, eps=0.0),
        "batch_norm: eps is 0.0, expected more",
    ),
    (lambda x: ops.batch_norm(x, _ZERO, _ONE, activation="gelu"), "batch_norm: activation is 'gelu'"),
]


@pytest.mark.parametrize(("call", "message"), _REFUSED, ids=[message for _, message in _REFUSED])
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(_values(2, 3, 4))


def test_types_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="batch_norm: residual is float16, expected input's type, float32"):
        ops.batch_norm(_values(2, 3), _ZERO, _ONE, residual=_values(2, 3).half())
    with pytest.raises(TypeError, match="batch_norm: input is int64, expected float64"):
        ops.batch_norm(np.ones((2, 3), np.int64), np.zeros(3), np.ones(3))


def test_a_mask_needs_the_result_only():
    """The gradient of a residual is taken from the result: what was summed is not kept."""
    x = _values(2, 3, 4)
    r = _values(2, 3, 4, seed=1).requires_grad_()
    y = ops.batch_norm(x, None, None, training=True, activation="relu", residual=r)
    (d,) = torch.autograd.grad(y, r, torch.ones_like(y))
    assert torch.equal(d, (y > 0).float())

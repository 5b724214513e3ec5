"""Gradients that are no plain memory, and what else may reach a backward or a forward of any op."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from honed import ops
from honed.testing import allowed_error

_TARGET = torch.tensor([1, 2, 0])
_W, _B = torch.linspace(0.5, 2, 8), torch.linspace(-1, 1, 8)
_CLASSES = torch.linspace(-1, 1, 40).view(5, 8)


def _sum_norm(o, name, x):
    norm = {"rms_norm": (_W, 1e-5), "layer_norm": (_W, _B, 1e-5)}[name]
    if o is F:
        return getattr(F, name)(x + x.sin(), (8,), *norm)
    return getattr(ops, f"add_{name}")(x, x.sin(), (8,), *norm)[0]


_OPS = {
    "rms_norm": lambda o, x: o.rms_norm(x, (8,), _W),
    "layer_norm": lambda o, x: o.layer_norm(x, (8,), _W, _B),
    "add_rms_norm": lambda o, x: _sum_norm(o, "rms_norm", x),
    "add_layer_norm": lambda o, x: _sum_norm(o, "layer_norm", x),
    "group_norm": lambda o, x: o.group_norm(x, 2, _W, _B),
    "softmax": lambda o, x: o.softmax(x, -1),
    "log_softmax": lambda o, x: o.log_softmax(x, 0),
    "gelu": lambda o, x: o.gelu(x),
    "relu": lambda o, x: o.relu(x),
    "embedding": lambda o, x: o.embedding(_TARGET, x),
    "cross_entropy": lambda o, x: o.cross_entropy(x, _TARGET),
    "cross_entropy of rows": lambda o, x: o.cross_entropy(x, _TARGET, reduction="none"),
    "linear_cross_entropy": lambda o, x: o.linear_cross_entropy(x, _CLASSES, _TARGET),
    "linear_cross_entropy of rows": lambda o, x: o.linear_cross_entropy(
        x, _CLASSES, _TARGET, reduction="none"
    ),
    "attention": lambda o, x: o.scaled_dot_product_attention(x.view(1, 1, 3, 8), *[x.view(1, 1, 3, 8)] * 2),
}


def _input(dtype=torch.float64):
    return torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=dtype).requires_grad_()


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    for name in ("_W", "_B", "_CLASSES"):
        monkeypatch.setitem(globals(), name, globals()[name].double())


@pytest.mark.parametrize("name", _OPS)
def test_a_negated_gradient(name):
    """The imaginary part of a conjugate hands one out: a view whose memory has the other sign."""
    found = []
    for o in (ops, F):
        x = _input()
        y = _OPS[name](o, x)
        grad = torch.linspace(1, 2, y.numel(), dtype=y.dtype).view(y.shape)
        (direct,) = torch.autograd.grad(y, x, torch._neg_view(grad), retain_graph=True)
        turned = torch.complex(torch.zeros_like(y), y).conj().imag
        (conjugate,) = torch.autograd.grad(turned, x, grad)
        torch.testing.assert_close(direct, conjugate)
        found.append(direct)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", _OPS)
def test_batched_gradients(name):
    found = []
    for o in (ops, F):
        x = _input()
        y = _OPS[name](o, x)
        grads = torch.linspace(-1, 2, 4 * y.numel(), dtype=y.dtype).view(4, *y.shape)
        found += torch.autograd.grad(y, x, grads, is_grads_batched=True)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", [*_OPS, "linear"])
def test_tangents_are_kept(name):
    function = _OPS.get(name) or (lambda o, x: o.linear(x, _CLASSES))
    found = []
    for o in (ops, F):
        x = _input().detach()
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            found.append(forward_ad.unpack_dual(function(o, forward_ad.make_dual(x, x.cos()))).tangent)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("linear", [False, True])
def test_float16_gradients_are_scaled_before_they_are_rounded(linear, reduction, weighted):
    """What ``torch.amp.GradScaler`` is for: most of these are below float16's least number before."""
    draw = torch.Generator().manual_seed(0)
    x, w = torch.rand(64, 16, generator=draw).half(), 3 * torch.rand(3000, 16, generator=draw)
    w = w.half()
    target = torch.randint(10, (64,), generator=draw)
    target[3] = -100
    weight = torch.rand(3000, generator=draw) if weighted else None

    def loss_of(x, w, dtype):
        factor = None if weight is None else weight.to(dtype)
        if dtype is None and linear:
            return ops.linear_cross_entropy(x, w, target, weight=weight, reduction=reduction)
        if dtype is None:
            return ops.cross_entropy(F.linear(x, w), target, weight, reduction=reduction)
        return F.cross_entropy(F.linear(x, w).to(dtype), target, factor, reduction=reduction)

    found = []
    for dtype, wide in ((torch.float16, None), (torch.float16, torch.float32), (torch.float64,) * 2):
        w_leaf = w.to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=dtype == torch.float16):
            loss = loss_of(x.to(dtype), w_leaf, wide)
        found += torch.autograd.grad(2.0**10 * (64 if reduction == "mean" else 1) * loss, w_leaf)
    want = found.pop()
    got, own = ((each.double() / want)[10:] for each in found)  # of the small ones, no targets
    one = torch.ones_like(got)
    assert (got - one).abs().max() <= allowed_error(one, own, torch.float16)

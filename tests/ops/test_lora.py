"""linear with an update of low rank: gradients of every operand, plain and packed weights."""

import pytest
import torch

from honed import ops
from honed.testing import allowed_error

F = torch.nn.functional


def _composed(x, w, bias, a, b):
    return F.linear(x, w, bias) + 0.5 * F.linear(F.linear(x, a), b)


def _draw(dtype=torch.float64):
    shapes = ((2, 3, 7), (5, 7), (5,), (2, 7), (5, 2))
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_gradients(activation):
    def function(x, w, bias, a, b):
        return ops.linear(x, w, bias, activation=activation, scale=0.7, lora=(a, b, 0.5))

    assert torch.autograd.gradcheck(function, _draw())
    assert torch.autograd.gradgradcheck(function, _draw())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_in_every_type(dtype):
    made = _draw(dtype)
    wide = [t.detach().double().requires_grad_() for t in made]
    upstream = torch.randn(2, 3, 5).to(dtype)
    got = torch.autograd.grad(ops.linear(*made[:3], lora=(*made[3:], 0.5)), made, upstream)
    own = torch.autograd.grad(_composed(*made), made, upstream)
    reference = torch.autograd.grad(_composed(*wide), wide, upstream.double())
    for one, torchs, exact in zip(got, own, reference, strict=True):
        assert (one.double() - exact).abs().max() <= allowed_error(exact, torchs, dtype)


def test_a_frozen_base_keeps_no_input_for_itself():
    x, w, bias, a, b = _draw()
    w.requires_grad_(False)
    ops.linear(x, w, bias, lora=(a, b, 0.5)).sum().backward()
    assert w.grad is None and all(t.grad is not None for t in (x, bias, a, b))
    x, w, bias, a, b = (t.detach().requires_grad_(t is bias) for t in (x, w, bias, a, b))
    node = ops.linear(x, w, bias, lora=(a, b, 0.5)).grad_fn
    assert node.saved_tensors[0] is None


@pytest.mark.parametrize("kind", ["f32", "int8", "int4"])
def test_a_packed_base(kind):
    x, w, bias, a, b = _draw(torch.float32)
    packed = ops.quantize_weight(w.detach(), kind, bias=bias.detach())
    leaves = (x, a, b)
    with torch.no_grad():
        got = ops.linear(x, packed, lora=(a, b, 0.5))
        expected = ops.linear(x, packed) + 0.5 * F.linear(F.linear(x, a), b)
    assert torch.allclose(got, expected, atol=1e-5)
    y = ops.linear(x, packed, lora=(a, b, 0.5))
    upstream = torch.randn_like(y)
    got = torch.autograd.grad(y, leaves, upstream)
    expected = torch.autograd.grad(_composed(x, packed.unpack(), bias, a, b), leaves, upstream)
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_numpy():
    made = [t.detach().numpy() for t in _draw()]
    got = ops.linear(*made[:3], lora=(*made[3:], 0.5))
    assert torch.allclose(torch.from_numpy(got), _composed(*map(torch.from_numpy, made)))

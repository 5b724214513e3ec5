"""Gradients of elementwise ops, rope and embedding where specs do not look: layouts, orders, odd grads."""

import pytest
import torch
import torch.nn.functional as F

from honed import _core, ops

_COS, _SIN = ops.rope_table(8, 16)
_OPS = {
    "silu": (ops.silu, F.silu),
    "gelu": (ops.gelu, F.gelu),
    "relu": (ops.relu, F.relu),
    "swiglu": (lambda x: ops.swiglu(x, x), lambda x: F.silu(x) * x),
    "geglu": (ops.geglu, lambda x: F.gelu(x[..., :4]) * x[..., 4:]),
    "dropout": (lambda x: ops.dropout(x, 0.5, seed=1), lambda x: x * ops.dropout(torch.ones_like(x), seed=1)),
    "rope": (
        lambda x: ops.rope(x.reshape(2, 3, 5, 8), _COS, _SIN),
        lambda x: torch.cat(
            (
                x[..., :4] * _COS[:3, None] - x[..., 4:] * _SIN[:3, None],
                x[..., 4:] * _COS[:3, None] + x[..., :4] * _SIN[:3, None],
            ),
            -1,
        ),
    ),
}
every_op = pytest.mark.parametrize("name", _OPS)


def _input(dtype=torch.float32):
    return torch.randn(2, 3, 5, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))


_ARRANGE = {
    "contiguous": lambda t: t.clone(),
    "permuted": lambda t: t.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "transposed": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "gaps": lambda t: torch.cat((t, t), -1)[..., : t.shape[-1]],
    "expanded": lambda t: t[:, :1].expand(t.shape),
    "negated": lambda t: torch.complex(t, -t).conj().imag,
}


@pytest.mark.parametrize("of_grad", _ARRANGE)
@pytest.mark.parametrize("of_input", ["contiguous", "permuted", "transposed", "gaps"])
@every_op
def test_grad_and_input_of_any_two_layouts(name, of_input, of_grad):
    mine, torchs = _OPS[name]
    x = _ARRANGE[of_input](_input()).requires_grad_()
    grad = _ARRANGE[of_grad](torch.randn(mine(x).shape))
    (got,) = torch.autograd.grad(mine(x), x, grad)
    (want,) = torch.autograd.grad(torchs(x), x, grad)
    torch.testing.assert_close(got, want)
    if name in ("silu", "gelu", "relu") and of_grad != "negated" and of_input in ("permuted", "transposed"):
        assert got.stride() == x.stride()


@every_op
def test_gradients_of_gradients_of_a_plain_sum(name):
    """The gradient of a sum is ones, which need no gradient themselves."""
    mine, torchs = _OPS[name]
    x = _input(torch.float64).requires_grad_()
    found = []
    for function in (mine, torchs):
        (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        found.append(torch.autograd.grad((first * x).sum(), x)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", [name for name in _OPS if name != "rope"])
def test_batched_gradients(name):
    mine, torchs = _OPS[name]
    x = _input()[0, 0, 0].clone().requires_grad_()
    eye = torch.eye(mine(x).numel())
    got, want = (torch.autograd.grad(f(x), x, eye, is_grads_batched=True)[0] for f in (mine, torchs))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("op", [ops.swiglu, ops.geglu])
def test_halves_are_two_tensors(op):
    both = torch.randn(3, 5, 14)
    gate, up = (t.clone() for t in both.chunk(2, -1))
    want = op(gate, up)
    for given in (both, both.transpose(0, 1).contiguous().transpose(0, 1), both.mT.contiguous().mT):
        assert torch.equal(op(given), want) and torch.equal(op(*given.chunk(2, -1)), want)
    grads = []
    for inputs in ((both,), both.chunk(2, -1), (gate, up)):
        leaves = [t.detach().requires_grad_() for t in inputs]
        grads.append(torch.cat(torch.autograd.grad(op(*leaves).square().sum(), leaves), -1))
    assert torch.equal(grads[0], grads[1]) and torch.equal(grads[0], grads[2])
    only = gate.clone().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(op(only, up).square().sum(), only)[0], grads[0].chunk(2, -1)[0]
    )
    name = op.__name__
    with pytest.raises(
        ValueError, match=rf"{name}: gate has shape \[3, 5\] and up is absent, expected an even"
    ):
        op(torch.randn(3, 5))
    with pytest.raises(ValueError, match=rf"{name}: gate has shape \[3, 5\] and up \[5\], expected equal"):
        op(torch.randn(3, 5), torch.randn(5))


def test_relu_of_nan_and_zeros():
    x = torch.tensor([float("nan"), 0.0, -0.0, float("inf"), -float("inf")])
    assert torch.equal(ops.relu(x).nan_to_num(7), F.relu(x).nan_to_num(7))
    grads = [
        torch.autograd.grad(f(y), y, torch.ones(5))[0]
        for f in (ops.relu, F.relu)
        if (y := x.clone().requires_grad_()) is not None
    ]
    assert torch.equal(*grads)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_embedding_gradient_of_repeated_ids(dtype):
    """Rows named often, once, never, all at the padding; the same bits on one thread and two."""
    ids = torch.randint(0, 7, (40, 50), dtype=dtype)
    ids[:, 0] = 11
    grad = torch.randn(40, 50, 131)
    for padding, scale in ((None, False), (3, False), (-1, True), (11, True)):
        found = []
        for threads in (1, 2):
            _core.set_num_threads(threads)
            try:
                weight = torch.randn(12, 131, requires_grad=True)
                y = ops.embedding(ids, weight, padding, scale_grad_by_freq=scale)
                found.append(torch.autograd.grad(y, weight, grad)[0])
            finally:
                _core.set_num_threads(0)
        assert torch.equal(*found)
        wide = weight.detach().double().requires_grad_()
        y = F.embedding(ids, wide, padding, scale_grad_by_freq=scale)
        (want,) = torch.autograd.grad(y, wide, grad.double())
        torch.testing.assert_close(found[0].double(), want, rtol=1e-5, atol=1e-4)


def test_embedding_sparse_is_torchs():
    weight = torch.randn(5, 4, requires_grad=True)
    ops.embedding(torch.tensor([1, 1]), weight, sparse=True).sum().backward()
    assert weight.grad.is_sparse and weight.grad.to_dense()[1].tolist() == [2.0] * 4
    with pytest.raises(ValueError, match=r"embedding_backward: grad has shape \[3, 4\] and input \[2\]"):
        _core.embedding_backward(torch.randn(3, 4), torch.tensor([1, 1]), 5, -1, False)


def test_rope_turns_back():
    x = torch.randn(2, 3, 5, 12, dtype=torch.float64)
    cos, sin = (t.double() for t in ops.rope_table(8, 9))
    where = torch.tensor([4, 1, 8])
    for interleaved in (False, True):
        turned = _core.rope(x, cos, sin, where, interleaved, False)
        torch.testing.assert_close(_core.rope(turned, cos, sin, where, interleaved, True), x)
    table = cos.clone().requires_grad_()  # a gradient of the tables is torch's
    ops.rope(x, table, sin, where).sum().backward()
    assert table.grad is not None

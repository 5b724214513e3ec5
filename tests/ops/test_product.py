"""What the specifications of linear and matmul cannot say: gradients, autocast, float64, torch's answers."""

import numpy as np
import pytest
import torch

from honed import ops
from honed.testing import allowed_error

F = torch.nn.functional
ACTIVATIONS = {
    "none": lambda y: y,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "silu": F.silu,
}
SHAPES = [
    ((5,), (5,)),
    ((3, 5), (5,)),
    ((5,), (5, 4)),
    ((5,), (2, 5, 4)),
    ((2, 3, 5), (5, 4)),
    ((3, 5), (2, 5, 4)),
    ((2, 1, 3, 5), (6, 5, 4)),
]


def draw(*shape, dtype=torch.float64, grad=True):
    return torch.randn(*shape, dtype=dtype, requires_grad=grad)


def checked(function, inputs):
    return torch.autograd.gradcheck(function, inputs) and torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_linear(activation):
    def function(x, w, b, r):
        return ops.linear(x, w, b, activation=activation, residual=r, scale=0.7)

    assert checked(function, (draw(2, 3, 5), draw(4, 5), draw(4), draw(2, 3, 4)))


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradients_of_matmul(shapes):
    assert checked(lambda a, b: ops.matmul(a, b, scale=1.3), [draw(*shape) for shape in shapes])


def test_only_the_gradients_asked_for():
    x, w, b = draw(3, 5), draw(4, 5, grad=False), draw(4)
    ops.linear(x, w, b).sum().backward()
    assert x.grad is not None and b.grad is not None and w.grad is None
    node = ops.linear(x, w, b).grad_fn
    assert node.saved_tensors[0] is None  # the input is kept for gradients of the weight alone
    node = ops.linear(x.detach(), w.requires_grad_()).grad_fn
    assert node.saved_tensors[1] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_gradients_in_every_type(dtype, activation):
    made = [
        draw(6, 33, grad=False),
        draw(20, 33, grad=False) / 6,
        draw(20, grad=False),
        draw(6, 20, grad=False),
    ]
    made = [t.to(dtype) for t in made]
    upstream = torch.randn(6, 20).to(dtype)

    def gradients(function, cast):
        inputs = [t.to(cast).requires_grad_() for t in made]
        return torch.autograd.grad(function(*inputs), inputs, upstream.to(cast))

    def plain(x, w, b, r):
        return ACTIVATIONS[activation](F.linear(x, w, b)) + r

    def honed(x, w, b, r):
        return ops.linear(x, w, b, activation=activation, residual=r)

    rows = zip(gradients(honed, dtype), gradients(plain, dtype), gradients(plain, torch.float64), strict=True)
    for got, own, reference in rows:
        assert got.dtype == dtype
        assert (got.double() - reference).abs().max() <= allowed_error(reference, own, dtype)


@pytest.mark.parametrize("kind", ["f32", "int8"])
def test_gradients_through_a_packed_weight(kind):
    packed = ops.quantize_weight(torch.randn(20, 33), kind, bias=torch.randn(20))
    x = draw(6, 33, dtype=torch.float32)
    y = ops.linear(x, packed, activation="silu", scale=0.5)
    assert torch.allclose(y, ops.linear(x.detach(), packed, activation="silu", scale=0.5), atol=1e-6)
    (got,) = torch.autograd.grad(ops.linear(x, packed, scale=0.5).sum(), x)
    expected = 0.5 * packed.unpack().sum(0).expand(6, 33)
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_float64_is_summed_in_float64():
    a, b = draw(9, 130, grad=False), draw(130, 7, grad=False)
    reference = torch.from_numpy(
        (a.numpy().astype(np.longdouble) @ b.numpy().astype(np.longdouble)).astype(float)
    )
    own = torch.matmul(a, b)
    allowed = allowed_error(reference, own, torch.float64)
    assert (ops.matmul(a, b) - reference).abs().max() <= allowed
    assert (ops.linear(a, b.T) - reference).abs().max() <= allowed
    assert torch.allclose(ops.linear(a, b.T, activation="gelu"), F.gelu(reference), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_as_torch_does(dtype):
    x, w, b, r = (draw(*shape, dtype=torch.float32) for shape in ((6, 33), (20, 33), (20,), (6, 20)))
    with torch.autocast("cpu", dtype=dtype):
        rows = [
            (ops.linear(x, w, b, activation="gelu"), F.gelu(F.linear(x, w, b))),
            (ops.linear(x, w, residual=r), F.linear(x, w) + r),
            (ops.matmul(x, w.T), torch.matmul(x, w.T)),
        ]
    for got, own in rows:
        assert got.dtype == own.dtype
        # both are roundings of one sum: at most an ulp of the type apart
        assert torch.allclose(got.float(), own.float(), rtol=2 * torch.finfo(dtype).eps, atol=1e-2)
    ops.matmul(x, w.T)
    got = torch.autograd.grad(rows[0][0].float().sum(), (x, w, b))
    assert all(g.dtype == torch.float32 for g in got)
    with torch.autocast("cpu", dtype=dtype):
        assert ops.matmul(x.double(), w.double().T).dtype == torch.float64


def test_what_is_torchs_own_stays_torchs():
    x, w = torch.randn(3, 5), torch.randn(4, 5)
    with pytest.raises(RuntimeError, match="dtype"):
        ops.linear(x, w.double())
    with pytest.raises(RuntimeError, match="dtype"):
        ops.matmul(x, w.T.bfloat16())
    assert torch.equal(ops.matmul(x.long(), w.T.long()), x.long() @ w.T.long())
    assert ops.linear(x.to("meta"), w.to("meta"), activation="relu").shape == (3, 4)
    got = ops.linear(x.to(torch.complex64), w.to(torch.complex64), scale=2.0)
    assert torch.allclose(got, 2 * F.linear(x, w).to(torch.complex64), atol=1e-5)
    assert torch.equal(ops.linear(x, w[0]), F.linear(x, w[0]))
    assert torch.allclose(torch.vmap(ops.matmul)(x, x), (x * x).sum(1), atol=1e-5)
    jacobian = torch.func.jacrev(lambda x: ops.linear(x, w))(x[0])
    assert torch.allclose(jacobian, w)


def test_numpy_needs_no_packing():
    x, w, b = np.ones((3, 5)), np.full((4, 5), 2.0), np.arange(4.0)
    assert np.array_equal(ops.linear(x, w, b, scale=0.5), np.full((3, 4), 5.0) + b)
    assert np.array_equal(ops.matmul(x, w.T), x @ w.T)


def test_a_transposed_weight_is_not_copied():
    x, w = torch.randn(3, 5), torch.randn(5, 4)
    assert torch.allclose(ops.linear(x, w.T), x @ w, atol=1e-5)


@pytest.mark.parametrize("sizes", [(2, 0, 3), (2, 4, 0), (0, 4, 3)], ids=str)
def test_gradients_of_nothing(sizes):
    rows, inputs, outputs = sizes
    x, w, b = draw(rows, inputs), draw(outputs, inputs), draw(outputs)
    for y in (ops.linear(x, w, b), ops.matmul(x, w.mT) + b):
        gradients = torch.autograd.grad(y.sum(), (x, w, b))
        expected = torch.autograd.grad(F.linear(x, w, b).sum(), (x, w, b))
        assert all(torch.equal(got, torchs) for got, torchs in zip(gradients, expected, strict=True))
    assert torch.equal(
        torch.autograd.grad(ops.linear(x[:1].sum(0), w).sum(), w)[0], x[:1].sum(0).expand_as(w)
    )

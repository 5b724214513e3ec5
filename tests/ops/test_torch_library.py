"""honed's ops in torch's registry: opcheck, torch.compile, torch.export; the C shims and the fallback."""

import shutil

import pytest
import torch

from honed import _core, ops
from honed.ops import _library


@pytest.fixture(scope="module")
def fallback():
    _library.register("honed_fallback", native=False)
    return torch.ops.honed_fallback


def _samples():
    x, w, b, r = torch.randn(2, 3, 5), torch.randn(4, 5), torch.randn(4), torch.randn(2, 3, 4)
    yield "linear", (x, w, b, 0, None, 0.5)
    yield "linear", (x.transpose(0, 1), w.double().float().T.contiguous().T, None, 1, r.transpose(0, 1), 1.0)
    yield "matmul", (x, w.T, 0.5)
    yield "matmul", (x[0, 0], w.T, 1.0)
    yield "matmul", (x[:, None], x.mT, 1.0)


@pytest.mark.parametrize("native", [True, False])
def test_opcheck(native, fallback):
    for name, args in _samples():
        op = getattr(torch.ops.honed if native else fallback, name).default
        assert set(torch.library.opcheck(op, args).values()) == {"SUCCESS"}


def test_both_ways_give_the_same(fallback):
    for name, args in _samples():
        native, python = getattr(torch.ops.honed, name), getattr(fallback, name)
        assert torch.equal(native(*args), python(*args))


def test_every_op_is_registered_by_the_shims():
    schemas = {schema.partition("(")[0] for schema in _core.torch_schemas()}
    assert schemas == set(_library._shapes)
    for name in schemas:
        kernels = torch._C._dispatch_dump(f"honed::{name}")
        assert "torch_library.cpp" in kernels, kernels


def test_refusals_arrive_as_errors():
    x = torch.randn(3, 5)
    for _ in range(50):  # and free what they took
        with pytest.raises(RuntimeError, match=r"linear: bias has shape \[5\], expected \[4\]"):
            torch.ops.honed.linear(x, torch.randn(4, 5), torch.randn(5), 0, None, 1.0)
    with pytest.raises(RuntimeError, match="activation is 9"):
        torch.ops.honed.linear(x, torch.randn(4, 5), None, 9, None, 1.0)


def _program(x, w, b, a):
    y = ops.linear(x, w, b, activation="gelu", scale=0.5, lora=(a, a[:, :4].T, 2.0))
    return ops.matmul(y, w).relu().sum()


def _gradients(function):
    torch.manual_seed(0)
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((2, 3, 5), (4, 5), (4,), (2, 5))]
    return torch.autograd.grad(function(*inputs), inputs)


def _plain(x, w, b, a):
    linear = torch.nn.functional.linear
    y = torch.nn.functional.gelu(linear(x, w) * 0.5 + 2 * linear(linear(x, a), a[:, :4].T) + b)
    return (y @ w).relu().sum()


BACKENDS = ["aot_eager", *(["inductor"] if shutil.which("g++") else [])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dynamic", [None, True])
def test_compile_with_gradients(backend, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(_program, backend=backend, fullgraph=True, dynamic=dynamic)
    for got, expected in zip(_gradients(compiled), _gradients(_plain), strict=True):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4)
    x = torch.randn(7, 3, 5), torch.randn(4, 5), torch.randn(4), torch.randn(2, 5)
    with torch.no_grad():
        assert torch.allclose(compiled(*x), _plain(*x), rtol=1e-4)


def test_export():
    class Net(torch.nn.Module):
        def forward(self, x, w):
            return ops.linear(x, w, activation="relu")

    x, w = torch.randn(3, 5), torch.randn(4, 5)
    for strict in (True, False):
        program = torch.export.export(
            Net(), (x, w), dynamic_shapes=({0: torch.export.Dim("rows")}, None), strict=strict
        )
        targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        assert targets == ["honed.linear.default"]
        wide = torch.randn(8, 5)
        assert torch.equal(program.module()(wide, w), ops.linear(wide, w, activation="relu"))


def test_compile_under_autocast():
    x, w = torch.randn(3, 5), torch.randn(4, 5)
    torch._dynamo.reset()
    with torch.autocast("cpu"):
        got = torch.compile(lambda x: ops.linear(x, w), backend="aot_eager", fullgraph=True)(x)
        assert got.dtype == torch.bfloat16
        assert torch.equal(got, ops.linear(x, w))


def test_a_packed_weight_breaks_the_graph():
    packed = ops.quantize_weight(torch.randn(4, 5))
    x = torch.randn(3, 5)
    torch._dynamo.reset()
    got = torch.compile(lambda x: ops.linear(x, packed).relu(), backend="aot_eager")(x)
    assert torch.equal(got, ops.linear(x, packed).relu())

"""honed.nn.Linear: torch's module with the same state, on honed's kernels; never a stale packed weight."""

import copy
import io
import pickle

import pytest
import torch

import honed
from honed import _core
from honed.nn import Linear
from honed.nn._packed import KINDS

F = torch.nn.functional


def pair(bias=True, dtype=torch.float32, sizes=(33, 20)):
    """torch's layer and honed's, with the same weights."""
    plain = torch.nn.Linear(*sizes, bias=bias, dtype=dtype)
    fast = Linear(*sizes, bias=bias, dtype=dtype)
    fast.load_state_dict(plain.state_dict())
    return plain, fast


def agree(plain, fast, rows=5):
    """Both layers, without gradients; returns honed's packed copy."""
    x = torch.randn(2, rows, plain.in_features).to(plain.weight.dtype)
    with torch.no_grad():
        got, expected = fast(x), plain(x)
    assert got.dtype == expected.dtype
    eps = torch.finfo(got.dtype).eps
    assert torch.allclose(got, expected, rtol=4 * eps, atol=16 * eps)
    return fast._packed


def test_is_torchs_module():
    plain, fast = pair()
    assert isinstance(fast, torch.nn.Linear)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    assert repr(fast) == repr(plain)
    agree(plain, fast)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(fast.state_dict())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_type(bias, dtype):
    packed = agree(*pair(bias, dtype))
    assert (packed.product is None) == (dtype == torch.float64)


EDITS = {
    "in place": lambda layer, p: p.mul_(2),
    "one value": lambda layer, p: p.view(-1)[7:8].fill_(3),
    "data": lambda layer, p: p.data.mul_(2),
    "data of one tensor for another": lambda layer, p: setattr(p, "data", p.data * 2),
    "a new parameter": lambda layer, p: setattr(layer, "weight", torch.nn.Parameter(p * 2)),
    "load_state_dict": lambda layer, p: layer.load_state_dict(
        {"weight": layer.weight * 2, "bias": layer.bias + 1}
    ),
    "load_state_dict(assign=True)": lambda layer, p: layer.load_state_dict(
        {"weight": layer.weight * 2, "bias": layer.bias + 1}, assign=True
    ),
    "another type": lambda layer, p: layer.to(torch.bfloat16),
    "init": lambda layer, p: torch.nn.init.ones_(p),
    "bias": lambda layer, p: layer.bias.add_(1),
    "no bias": lambda layer, p: setattr(layer, "bias", None),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("inference", [False, True])
def test_edits_are_seen(edit, inference):
    with torch.inference_mode(inference):
        plain, fast = pair(sizes=(33, 70))
        before = agree(plain, fast)
        with torch.no_grad():
            for layer in (plain, fast):
                EDITS[edit](layer, layer.weight)
        if inference and edit == "one value":
            return  # inference tensors count no versions, and 64 samples need not hit one value of 2310
        assert agree(plain, fast) is not before


def test_is_packed_once():
    plain, fast = pair()
    assert agree(plain, fast) is agree(plain, fast)
    fast.eval().train().requires_grad_(False).requires_grad_(True)
    assert agree(plain, fast) is agree(plain, fast)


def test_an_optimizer_step_is_seen():
    plain, fast = pair()
    before = agree(plain, fast)
    optimizer = torch.optim.AdamW(fast.parameters(), lr=0.1)
    fast(torch.randn(2, 33)).square().mean().backward()
    optimizer.step()
    plain.load_state_dict(fast.state_dict())
    assert agree(plain, fast) is not before


def test_tied_weights_are_packed_once():
    one, other = Linear(8, 8, bias=False), Linear(8, 8, bias=False)
    other.weight = one.weight
    x = torch.randn(2, 8)
    with torch.no_grad():
        one(x), other(x)
        assert one._packed is other._packed
        one.weight.mul_(2)
        assert torch.equal(one(x), other(x))
        assert one._packed is other._packed
        other.storage = "int8"
        other(x)
    assert one._packed is not other._packed


@pytest.mark.parametrize("storage", KINDS)
def test_storage(storage):
    plain, fast = pair()
    fast.storage = storage
    x = torch.randn(3, 33)
    with torch.no_grad():
        got = fast(x)
        packed = fast._packed.product
        assert torch.equal(got, honed.ops.linear(x, packed))
        assert packed.kind == {None: "f32", "fp16": "f16"}.get(storage, storage)
    assert torch.equal(fast.weight, plain.weight)
    assert torch.allclose(fast(x), plain(x), atol=1e-5)  # with gradients: the parameters themselves


def test_storage_refused():
    _, fast = pair()
    fast.storage = "int3"
    with torch.no_grad(), pytest.raises(ValueError, match="storage is 'int3'"):
        fast(torch.ones(1, 33))


def _pickled(layer):
    return pickle.loads(pickle.dumps(layer))


def _saved(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, _pickled, _saved])
def test_copies_pack_their_own(copied):
    plain, fast = pair()
    fast.storage = "fp16"
    with torch.no_grad():
        fast(torch.ones(1, 33))
        other = copied(fast)
        assert type(other) is Linear and other.storage == "fp16"
        if copied is not copy.copy:
            assert other._packed is None
            fast.weight.zero_()
        other.storage = None
        if copied is not copy.copy:
            agree(plain, other)


def test_gradients():
    plain, fast = pair()
    x = torch.randn(4, 33)
    made = []
    for layer in (plain, fast):
        leaf = x.clone().requires_grad_()
        layer(leaf).square().sum().backward()
        made.append((leaf.grad, layer.weight.grad, layer.bias.grad))
    for got, expected in zip(made[1], made[0], strict=True):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_frozen_weights_pass_the_gradient_on():
    plain, fast = pair()
    fast.requires_grad_(False)
    x = torch.randn(4, 33, requires_grad=True)
    (got,) = torch.autograd.grad(fast(x).sum(), x)
    assert torch.allclose(got, plain.weight.sum(0).expand(4, 33), atol=1e-5)


def test_hooks():
    _, fast = pair()
    seen = []
    fast.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    fast.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    with torch.no_grad():
        assert torch.equal(fast(torch.ones(2, 33)), fast.bias.expand(2, 20))
    assert seen == [(2, 20)]


def test_parametrized_weights():
    plain, fast = pair()
    for layer in (plain, fast):
        torch.manual_seed(1)
        torch.nn.utils.parametrizations.weight_norm(layer)
        torch.nn.utils.parametrize.register_parametrization(layer, "bias", torch.nn.Tanh())
    x = torch.randn(3, 33)
    for layer in (plain, fast):
        with torch.no_grad():
            layer.parametrizations.weight.original0.mul_(3)
    with torch.no_grad():
        assert torch.allclose(fast(x), plain(x), atol=1e-5)
    assert torch.allclose(fast(x), plain(x), atol=1e-5)


def test_what_torch_refuses_is_refused():
    _, fast = pair()
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="dtype"):
            fast(torch.ones(2, 33).double())
        with pytest.raises(ValueError, match="linear: input has 32 columns, expected 33"):
            fast(torch.ones(2, 32))


def test_other_devices_and_tracers():
    meta = Linear(3, 4, device="meta")
    assert meta(torch.ones(2, 3, device="meta")).shape == (2, 4)
    _, fast = pair()
    graph = torch.fx.symbolic_trace(torch.nn.Sequential(fast))
    x = torch.randn(2, 33)
    assert torch.allclose(graph(x), fast(x), atol=1e-5)
    with torch.autocast("cpu"), torch.no_grad():
        assert fast(x).dtype == torch.bfloat16


def test_compile():
    plain, fast = pair()
    torch._dynamo.reset()
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 33)
    with torch.no_grad():
        assert torch.allclose(compiled(x), plain(x), atol=1e-5)
        fast.weight.mul_(2)
        plain.weight.mul_(2)
        assert torch.allclose(compiled(x), plain(x), atol=1e-5)
    compiled(x).sum().backward()
    plain(x).sum().backward()
    assert torch.allclose(fast.weight.grad, plain.weight.grad, atol=1e-5)


def test_fingerprints_of_every_layout():
    base = torch.randn(70, 90)
    for view in (
        base,
        base.T,
        base[::2, 1::3],
        base[:0],
        base[3, 4],
        base.expand(2, 70, 90),
        base.to("meta"),
    ):
        assert _core.fingerprint(view) == _core.fingerprint(view)
    assert _core.fingerprint(base.to("meta")) != _core.fingerprint(base.T.to("meta"))
    x = torch.zeros(40)
    for i in range(40):  # a small tensor is compared whole
        before = _core.fingerprint(x)
        x.data[i] = 1
        assert _core.fingerprint(x) != before
    with pytest.raises(TypeError, match="no tensor"):
        _core.fingerprint(3)

"""The kinds of tensors that lend their memory silently, or have none: right, or refused."""

import contextlib
import gc
import sys
import tracemalloc

import pytest
import torch
import torch.nn.functional as F

from honed import _core, ops
from honed.ops._torch.rope import composed

_COS, _SIN = ops.rope_table(8, 16)
_IDS = torch.tensor([[1, 0, 2], [2, 2, 1]])
_ZEROS = torch.zeros(8)
_CLASSES, _ONES = torch.tensor([7, 0, 3]), torch.tensor([1, 0, 1])

# Name -> (honed's, torch's) on a float tensor of shape (3, 8).
_OPS = {
    "layer_norm": (
        lambda x: ops.layer_norm(x, (8,), x[0], x[1]),
        lambda x: F.layer_norm(x, (8,), x[0], x[1]),
    ),
    "rms_norm": (lambda x: ops.rms_norm(x, (8,), x[0]), lambda x: F.rms_norm(x, (8,), x[0])),
    "silu": (ops.silu, F.silu),
    "gelu": (ops.gelu, F.gelu),
    "add_rms_norm": (
        lambda x: ops.add_rms_norm(x, x, (8,), x[0])[0],
        lambda x: F.rms_norm(x + x, (8,), x[0]),
    ),
    "group_norm": (lambda x: ops.group_norm(x, 2), lambda x: F.group_norm(x, 2)),
    "max_pool1d": (lambda x: ops.max_pool1d(x, 3, 2, 1), lambda x: F.max_pool1d(x, 3, 2, 1)),
    "avg_pool1d": (lambda x: ops.avg_pool1d(x, 3, 2, 1), lambda x: F.avg_pool1d(x, 3, 2, 1)),
    "adaptive_avg_pool1d": (
        lambda x: ops.adaptive_avg_pool1d(x, 3),
        lambda x: F.adaptive_avg_pool1d(x, 3),
    ),
    "batch_norm": (
        lambda x: ops.batch_norm(x, None, None, x[0], training=True),
        lambda x: F.batch_norm(x, None, None, x[0], training=True),
    ),
    "relu": (ops.relu, F.relu),
    "swiglu": (lambda x: ops.swiglu(x, x[:1].expand(3, 8)), lambda x: F.silu(x) * x[:1]),
    "geglu": (lambda x: ops.geglu(x, x), lambda x: F.gelu(x) * x),
    "softmax": (lambda x: ops.softmax(x, -1), lambda x: F.softmax(x, -1)),
    "log_softmax": (lambda x: ops.log_softmax(x, 0), lambda x: F.log_softmax(x, 0)),
    "embedding": (lambda x: ops.embedding(_IDS, x), lambda x: F.embedding(_IDS, x)),
    "cross_entropy": (
        lambda x: ops.cross_entropy(x, _CLASSES.to(x.device), x.detach()[0].exp(), reduction="none"),
        lambda x: F.cross_entropy(x, _CLASSES.to(x.device), x.detach()[0].exp(), reduction="none"),
    ),
    "linear_cross_entropy": (
        lambda x: ops.linear_cross_entropy(x, x[1:], _ONES.to(x.device), chunk=2),
        lambda x: F.cross_entropy(F.linear(x, x[1:]), _ONES.to(x.device)),
    ),
    "rope": (
        lambda x: ops.rope(x[None, :, None], _COS, _SIN),
        lambda x: composed(x[None, :, None], _COS, _SIN, None, False),
    ),
}
# The binding alone, as a caller that skips the Python layer has it.
_BINDINGS = {
    "layer_norm": lambda x: _core.layer_norm(x, None, None, 1e-5, 1, -1),
    "rms_norm": lambda x: _core.rms_norm(x, None, 1e-5, 1, -1),
    "silu": _core.silu,
    "gelu": lambda x: _core.gelu(x, False),
    "add_rms_norm": lambda x: _core.add_rms_norm(x, x, None, 1e-5, 1, -1)[0],
    "group_norm": lambda x: _core.group_norm(x, 2, None, None, 1e-5),
    "softmax": lambda x: _core.softmax(x, -1, False),
    "log_softmax": lambda x: _core.log_softmax(x, 0, False),
    "max_pool1d": lambda x: _core.max_pool(x, 1, 1, 3, 1, 2, 0, 1, 1, 1, False, False, False)[0],
    "avg_pool1d": lambda x: _core.avg_pool(x, 1, 1, 3, 1, 2, 0, 1, False, True, 0),
    "adaptive_avg_pool1d": lambda x: _core.adaptive_avg_pool(x, 1, 1, 3),
    "batch_norm": lambda x: _core.batch_norm(x, _ZEROS, _ZEROS, None, None, None, 1e-5, 0),
    "relu": _core.relu,
    "swiglu": lambda x: _core.swiglu(x, x),
    "geglu": lambda x: _core.geglu(x, x, False),
    "embedding": lambda x: _core.embedding(x, _IDS),
    "rope": lambda x: _core.rope(x, _COS, _SIN, None, False, False),
    "cross_entropy": lambda x: _core.cross_entropy(
        x, torch.zeros(x.shape[:-1], dtype=torch.int64), None, -100, 1, 0.0, 0.0, 0.0, False, False, False
    )[0],
    "linear_cross_entropy": lambda x: _core.linear_cross_entropy(
        x,
        x,
        torch.zeros(x.shape[:-1], dtype=torch.int64),
        *(None, None, None, -100, 1, 0.0, 0.0, 0.0, 0),
        *(False, False, False, False),
    )[0],
}

_UNARY = ["silu", "gelu", "relu"]
every_op = pytest.mark.parametrize("name", _OPS)


def _tensor(seed=0, shape=(3, 8)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _check(name, x, **kwargs):
    mine, torchs = _OPS[name]
    got, want = mine(x), torchs(x)
    assert type(got) is type(want) and got.dtype == want.dtype
    torch.testing.assert_close(got, want, **kwargs)
    return got


@every_op
def test_fake(name):
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(_tensor())
        out = _OPS[name][0](fake)
    assert type(out) is type(fake) and out.shape == _OPS[name][1](_tensor()).shape
    with pytest.raises(ValueError, match=r"FakeTensor of shape \[3, 8\] has no data"):
        _BINDINGS[name](fake)


@every_op
def test_meta(name):
    if name == "rope":
        cos, sin = _COS.to("meta"), _SIN.to("meta")
        out = ops.rope(_tensor().to("meta")[None, :, None], cos, sin)
        assert out.is_meta and out.shape == (1, 3, 1, 8)
    elif name != "embedding":
        assert _OPS[name][0](_tensor().to("meta")).is_meta
    with pytest.raises(RuntimeError, match="meta"):
        _BINDINGS[name](_tensor().to("meta"))


@every_op
def test_gradients_are_torchs(name):
    mine, torchs = _OPS[name]
    for make in (lambda t: t.requires_grad_(), torch.nn.Parameter):
        a, b = make(_tensor()), make(_tensor())
        mine(a).square().sum().backward()
        torchs(b).square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad)


@every_op
def test_a_parameter_without_gradients_runs_natively(name):
    parameter = torch.nn.Parameter(_tensor())
    assert not _core.takes(parameter)
    with torch.no_grad():
        assert _core.takes(parameter)
        assert type(_OPS[name][0](parameter)) is torch.Tensor
    assert _core.takes(parameter.detach())


@every_op
def test_negated_view(name):
    x = torch.complex(_tensor(1), _tensor(2)).conj().imag
    assert x.is_neg()
    _check(name, x)


@pytest.mark.parametrize("name", ["silu", "softmax"])
def test_complex_and_conjugated(name):
    x = torch.complex(_tensor(1), _tensor(2))
    for t in (x, x.conj()):
        with pytest.raises((RuntimeError, TypeError)):  # torch: not implemented for complex
            _OPS[name][0](t) if name == "softmax" else _core.silu(t)
        with pytest.raises(TypeError, match="DLPack code 5, 64 bits"):
            _BINDINGS[name](t)
    torch.testing.assert_close(ops.silu(x), F.silu(x))


@every_op
@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.float64])
def test_other_types_get_torchs_answer(name, dtype):
    x = (_tensor() * 3).to(dtype)
    try:
        want = _OPS[name][1](x)
    except (RuntimeError, TypeError) as error:
        with pytest.raises(type(error)):
            _OPS[name][0](x)
    else:
        torch.testing.assert_close(_OPS[name][0](x), want, equal_nan=True)
    if dtype != torch.float64:
        with pytest.raises(TypeError, match=f"{name}: .* is .*, expected float"):
            _BINDINGS[name](x[None, :, None] if name == "rope" else x)


@every_op
def test_float8_is_no_crash(name):
    x = _tensor().to(torch.float8_e4m3fn)
    with pytest.raises(TypeError, match="DLPack code 10"):
        _BINDINGS[name](x)


class _Subclass(torch.Tensor):
    pass


@every_op
def test_subclass_keeps_its_class(name):
    x = _tensor().as_subclass(_Subclass)
    assert not _core.takes(x)
    out = _OPS[name][0](x)
    assert type(out) is _Subclass
    torch.testing.assert_close(out.as_subclass(torch.Tensor), _OPS[name][1](_tensor()))


@every_op
def test_expanded(name):
    _check(name, _tensor(shape=(1, 8)).expand(3, 8))
    _check(name, _tensor(shape=(3, 1)).expand(3, 8))


@pytest.mark.parametrize("name", _UNARY)
def test_no_dimensions(name):
    _check(name, _tensor(shape=()))
    _check(name, torch.tensor(float("nan")), equal_nan=True)


def test_no_dimensions_where_one_is_needed():
    x = _tensor(shape=())
    torch.testing.assert_close(ops.softmax(x, -1), torch.tensor(1.0))  # torch's own
    for name in ("softmax", "layer_norm", "rms_norm"):
        with pytest.raises(ValueError, match=f"{name}: input has no dimensions"):
            _BINDINGS[name](x)
    with pytest.raises(ValueError, match="layer_norm: input has no dimensions"):
        ops.layer_norm(x, (8,))


@every_op
def test_size_zero(name):
    if name in (*_UNARY, "softmax"):
        for shape in ((0,), (0, 8), (3, 0), (2, 0, 3)):
            assert _check(name, torch.empty(shape)).shape == shape
    elif name == "rope":
        assert ops.rope(torch.empty(1, 0, 2, 8), _COS, _SIN).shape == (1, 0, 2, 8)
    elif name == "embedding":
        assert ops.embedding(_IDS[:0], _tensor()).shape == (0, 3, 8)
    elif name.endswith("cross_entropy"):
        assert _BINDINGS[name](torch.empty(0, 8)).isnan()  # the mean of none
    else:
        assert _BINDINGS[name](torch.empty(0, 8)).shape == (0, 8)
        assert _BINDINGS[name](torch.empty(3, 0)).shape == (3, 0)


@every_op
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_aligned_to_its_elements_only(name, dtype):
    for offset in (dtype.itemsize, 8, 24):
        buffer = bytearray(offset + 24 * dtype.itemsize)
        x = torch.frombuffer(buffer, dtype=dtype, offset=offset).view(3, 8)
        x.copy_(_tensor())
        torch.testing.assert_close(_OPS[name][0](x), _OPS[name][0](x.clone()), rtol=0, atol=0)


@pytest.mark.parametrize("name", _UNARY)
def test_strides_are_torchs(name):
    x = _tensor(shape=(2, 3, 4, 5))
    for t in (x, x.permute(0, 3, 1, 2), x.to(memory_format=torch.channels_last), x.mT, x[:, :, :, 1:3]):
        assert _check(name, t).stride() == _OPS[name][1](t).stride()


class _Wrapper:
    """What any other framework's array is: only __dlpack__."""

    def __init__(self, tensor):
        self.tensor, self.shape, self.dtype = tensor, tensor.shape, tensor.dtype

    def __dlpack__(self, **kwargs):
        return self.tensor.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


class _Unversioned(_Wrapper):
    def __dlpack__(self):
        return self.tensor.__dlpack__()


class _OldTorch(_Wrapper):
    """As a torch tensor before the exchange API: __dlpack__ refuses what requires a gradient."""

    @property
    def requires_grad(self):
        return self.tensor.requires_grad

    def detach(self):
        return _OldTorch(self.tensor.detach())


@pytest.mark.parametrize("wrapper", [_Wrapper, _Unversioned, _OldTorch])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", *_UNARY, "swiglu", "geglu", "softmax"])
def test_objects_with_dlpack_only(name, wrapper):
    x = _tensor()
    for t in (x, x.T, x[:, ::2], x[:0]):
        torch.testing.assert_close(_BINDINGS[name](wrapper(t)), _BINDINGS[name](t), rtol=0, atol=0)
    torch.testing.assert_close(ops.silu(wrapper(x)), ops.silu(x), rtol=0, atol=0)
    parameter = torch.nn.Parameter(x)
    if wrapper is _OldTorch:
        torch.testing.assert_close(_BINDINGS[name](wrapper(parameter)), _BINDINGS[name](x), rtol=0, atol=0)
    else:
        with pytest.raises(BufferError):
            _BINDINGS[name](wrapper(parameter))


def test_functorch_goes_to_torch():
    x = _tensor()
    torch.testing.assert_close(torch.vmap(ops.silu)(x), F.silu(x))
    torch.testing.assert_close(
        torch.func.grad(lambda t: ops.silu(t).sum())(x), torch.func.grad(lambda t: F.silu(t).sum())(x)
    )
    _, tangent = torch.func.jvp(ops.silu, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, torch.func.jvp(F.silu, (x,), (torch.ones_like(x),))[1])


def test_jit_trace_records_the_op():
    with torch.no_grad():
        traced = torch.jit.trace(ops.silu, _tensor(1), check_trace=False)
        torch.testing.assert_close(traced(_tensor(2)), F.silu(_tensor(2)))


def test_compile_is_whole():
    compiled = torch.compile(lambda x: ops.softmax(ops.silu(x), -1), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(_tensor()), F.softmax(F.silu(_tensor()), -1))


def test_sparse_and_nested_are_not_read():
    sparse = torch.eye(3).to_sparse()
    assert not _core.takes(sparse)
    with pytest.raises((RuntimeError, ValueError)):
        _core.silu(sparse)
    nested = torch.nested.nested_tensor([_tensor(shape=(2, 4)), _tensor(shape=(3, 4))], layout=torch.jagged)
    assert not _core.takes(nested)


def test_distributed_has_no_data():
    dist = pytest.importorskip("torch.distributed")
    tensor = pytest.importorskip("torch.distributed.tensor")
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        x = tensor.distribute_tensor(_tensor(), mesh)
        assert not _core.takes(x)
        torch.testing.assert_close(ops.silu(x).to_local(), F.silu(_tensor()))
        with pytest.raises(ValueError, match=r"DTensor of shape .* has no data"):
            _core.silu(x)
    finally:
        dist.destroy_process_group()


def test_an_id_out_of_range_is_named():
    table = _tensor()
    for ids in (torch.tensor([0, 3]), torch.tensor([0, 3], dtype=torch.int32)):
        with pytest.raises(IndexError, match=r"embedding: id 3 at position 1 is out of range.* less than 3"):
            ops.embedding(ids, table)
    with pytest.raises(IndexError, match="embedding: id -1 at position 0"):
        ops.embedding(torch.tensor(-1), table)
    with pytest.raises(ValueError, match="embedding: padding_idx is 3"):
        ops.embedding(_IDS, table, padding_idx=3)
    with pytest.raises(TypeError, match="embedding: input is float32, expected int64 or int32"):
        _core.embedding(table, table)


@every_op
def test_no_reference_is_kept(name):
    x = _tensor()
    # Calls that answer, and calls that refuse.
    calls = [lambda: _OPS[name][0](x), lambda: _OPS[name][0](x.double())]
    for wrapper in (_Wrapper, _Unversioned):
        calls.append(
            lambda wrapper=wrapper: _BINDINGS[name](wrapper(x[None, :, None] if name == "rope" else x))
        )

    def run(times):
        for _ in range(times):
            for call in calls:
                with contextlib.suppress(RuntimeError, TypeError):
                    call()

    run(10)
    gc.collect()
    references, objects = sys.getrefcount(x), len(gc.get_objects())
    tracemalloc.start()
    run(1000)  # Python and torch fill caches of some 40 kB
    before = tracemalloc.get_traced_memory()[0]
    run(1000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert sys.getrefcount(x) == references
    # A leak of one object a call would be 1000 objects, or 16 bytes of each.
    assert len(gc.get_objects()) - objects < 500
    assert grown < 16 * 1000

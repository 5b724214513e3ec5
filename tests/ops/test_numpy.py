"""NumPy arrays through every op: the answers of torch, and torch never asked."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from honed import ops

_COS, _SIN = (np.asarray(t) for t in ops.rope_table(6, 9))


def _vector(x, seed):
    return (
        np.random.default_rng(seed).standard_normal(x.shape[-1]).astype(str(x.dtype).removeprefix("torch."))
    )


# Name -> op on a 4-D array, written for NumPy and torch alike.
_OPS = {
    "layer_norm": lambda x, of: ops.layer_norm(x, x.shape[-1:], of(_vector(x, 1)), of(_vector(x, 2))),
    "rms_norm": lambda x, of: ops.rms_norm(x, x.shape[-1:], of(_vector(x, 1)), 1e-5),
    "silu": lambda x, of: ops.silu(x),
    "gelu": lambda x, of: ops.gelu(x),
    "gelu_tanh": lambda x, of: ops.gelu(x, "tanh"),
    "add_rms_norm": lambda x, of: ops.add_rms_norm(x, x, x.shape[-2:], None, 1e-5)[0],
    "add_layer_norm": lambda x, of: ops.add_layer_norm(x, x, x.shape[-1:], of(_vector(x, 1)))[0],
    "group_norm": lambda x, of: ops.group_norm(x, 1),
    "max_pool2d": lambda x, of: ops.max_pool2d(x, 3, 1, 1),
    "avg_pool2d": lambda x, of: ops.avg_pool2d(x, (1, 3), 1, (0, 1)),
    "adaptive_avg_pool2d": lambda x, of: ops.adaptive_avg_pool2d(x, (None, 9)),
    "batch_norm": lambda x, of: ops.batch_norm(x, None, None, training=True, activation="relu"),
    "relu": lambda x, of: ops.relu(x),
    "swiglu": lambda x, of: ops.swiglu(x, x[:, ::-1] if isinstance(x, np.ndarray) else x.flip(1)),
    "geglu": lambda x, of: ops.geglu(x, x),
    "geglu_tanh": lambda x, of: ops.geglu(x, x, "tanh"),
    "dropout": lambda x, of: ops.dropout(x, 0.3, seed=3),
    "softmax": lambda x, of: ops.softmax(x, -1),
    "log_softmax": lambda x, of: ops.log_softmax(x, 1),
    "embedding": lambda x, of: ops.embedding(of(np.array([[1, 0], [1, 1]])), x[0, 0]),
    "rope": lambda x, of: ops.rope(x, of(_COS), of(_SIN)),
}

_ARRANGE = {
    "contiguous": lambda x: x,
    "reversed_rows": lambda x: x[:, ::-1],
    "reversed_columns": lambda x: x[..., ::-1],
    "reversed": lambda x: x[::-1, ::-1, ::-1, ::-1],
    "fortran": np.asfortranarray,
    "every_second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
}


def _array(dtype, shape=(2, 5, 3, 9)):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("arrange", _ARRANGE)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", _OPS)
def test_any_strides(name, dtype, arrange):
    x = _ARRANGE[arrange](_array(dtype))
    got = _OPS[name](x, lambda a: a)
    assert type(got) is np.ndarray and got.dtype == dtype
    # Bits: the same kernel on the same numbers. test_ops.py compares torch tensors with float64.
    want = _OPS[name](torch.from_numpy(x.copy()), lambda a: torch.from_numpy(np.array(a)))
    np.testing.assert_array_equal(got, want.numpy())


@pytest.mark.parametrize("name", _OPS)
def test_a_readonly_array_is_read_and_not_written(name):
    x = _array(np.float32)
    x.flags.writeable = False
    before = x.copy()
    got = _OPS[name](x, lambda a: a)
    np.testing.assert_array_equal(x, before)
    assert got.flags.writeable and not np.shares_memory(got, x)


@pytest.mark.parametrize("name", [name for name in _OPS if name != "embedding"])
def test_empty(name):
    for shape in ((0, 5, 3, 9), (2, 0, 3, 9), (2, 5, 0, 9)):
        assert _OPS[name](_array(np.float32, shape), lambda a: a).shape == shape


def test_empty_embedding():
    table = _array(np.float32, (4, 9))
    assert ops.embedding(np.zeros((0, 3), np.int64), table).shape == (0, 3, 9)
    assert ops.embedding(np.zeros(2, np.int64), table[:, :0]).shape == (2, 0)
    with pytest.raises(IndexError, match="less than 0"):
        ops.embedding(np.zeros(2, np.int64), table[:0])


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.bool_, np.uint8])
@pytest.mark.parametrize("name", _OPS)
def test_a_type_without_a_kernel_is_named(name, dtype):
    with pytest.raises(
        TypeError, match=rf"{name.removesuffix('_tanh')}: .*{np.dtype(dtype).name}.*expected float"
    ):
        _OPS[name](np.ones((2, 5, 3, 9), dtype), lambda a: a)


@pytest.mark.parametrize("dtype", [np.complex64, ">f4", "U3", object])
@pytest.mark.parametrize("name", ["silu", "softmax"])
def test_a_foreign_type_is_refused(name, dtype):
    with pytest.raises(TypeError):
        _OPS[name](np.zeros((2, 3)).astype(dtype), lambda a: a)


def test_softmax_over_other_dimensions():
    x = _array(np.float32)
    for dim in range(-4, 4):
        got = ops.softmax(x, dim)
        want = torch.softmax(torch.from_numpy(x), dim).numpy()
        np.testing.assert_allclose(got, want, rtol=8 * np.finfo(np.float32).eps)
    half = x.astype(np.float16)
    assert ops.softmax(half, -1, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="softmax: dim is None"):
        ops.softmax(x)
    with pytest.raises(ValueError, match="softmax: dim is 4"):
        ops.softmax(x, 4)
    with pytest.raises(ValueError, match="softmax: dtype is float64"):
        ops.softmax(x, -1, dtype=np.dtype(np.float64))


def test_what_only_torch_does_is_refused():
    x = _array(np.float32)
    with pytest.raises(ValueError, match="silu: inplace"):
        ops.silu(x, inplace=True)
    with pytest.raises(ValueError, match="embedding: max_norm"):
        ops.embedding(np.zeros(2, np.int64), x[0, 0], max_norm=1.0)
    with pytest.raises(ValueError, match=r"layer_norm: .* expected its last dimensions to be \[9, 3\]"):
        ops.layer_norm(x, (9, 3))
    with pytest.raises(ValueError, match="gelu: approximate is 'fast'"):
        ops.gelu(x, "fast")
    for bad in (None, 3, [1.0]):
        with pytest.raises(TypeError):
            ops.silu(bad)


def test_without_torch():
    code = """if True:
        import sys
        sys.modules["torch"] = None  # import torch fails
        import importlib.util
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "torch" else real(name, *rest)
        import numpy as np
        from honed import ops
        x = np.ones((1, 2, 3, 8), np.float32)
        cos, sin = ops.rope_table(8, 2)
        assert type(cos) is np.ndarray
        w = np.ones(8, np.float32)
        for y in (
            ops.layer_norm(x, (8,), w, w), ops.rms_norm(x, (8,), w), ops.silu(x), ops.gelu(x),
            ops.relu(x), ops.swiglu(x, x), ops.geglu(x, x), ops.dropout(x), ops.dropout(x, seed=2),
            ops.softmax(x, -1), ops.rope(x, cos, sin), ops.embedding(np.zeros((1, 2, 3), np.int64), x[0, 0]),
        ):
            assert type(y) is np.ndarray and y.shape == x.shape
        packed = ops.quantize_weight(x[0, 0])
        assert type(packed.unpack()) is np.ndarray and np.array_equal(packed.unpack(), x[0, 0])
        """
    subprocess.run([sys.executable, "-c", code], check=True)

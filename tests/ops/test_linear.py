"""What the specification of linear cannot say: integer weights, gated weights, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from honed import _core, ops
from honed.testing import allowed_error, cpu_level

LEVELS = _core.usable_levels()
SHAPES = [(1, 1, 1), (1, 40, 33), (2, 33, 64), (5, 64, 100), (16, 96, 128), (37, 70, 65)]

INTEGERS = [
    ("int8", {}),
    ("int8", {"group": None}),
    ("int8", {"rows": "float"}),
    ("int4", {}),
    ("int4", {"rows": "float"}),
]


def _integers(m, n, k, high, generator):
    """Rows and weights whose scales are 1, so that every sum is an exact float32 integer."""
    x = torch.randint(-127, 128, (m, k), generator=generator).float()
    x[:, ::32] = 127
    w = torch.randint(-high, high + 1, (n, k), generator=generator).float()
    return x, w


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("group", [32, 96, 256, None])
def test_int8_equals_integers(level, shape, group):
    x, w = _integers(*shape, 127, torch.Generator().manual_seed(1))
    w[:, 0] = 127
    with cpu_level(level):
        packed = ops.quantize_weight(w, "int8", group)
        got = ops.linear(x, packed)
    assert packed.group == group
    assert torch.equal(got.long(), x.long() @ w.long().T)


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    m=st.integers(1, 90),
    n=st.integers(1, 70),
    k=st.one_of(st.integers(1, 300), st.integers(900, 4200)),
    group=st.sampled_from([32, 64, 128, 224, 256, 1056, None]),
    seed=st.integers(0, 2**32 - 1),
)
@example(m=20, n=40, k=3001, group=None, seed=0)
@example(m=90, n=33, k=2300, group=1056, seed=0)
def test_int8_sums_are_exact(level, m, n, k, group, seed):
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randint(-127, 128, (rows, k), generator=generator).float() for rows in (m, n))
    w[:, 0] = 127  # every channel's scale is 1, a row's in every group 1 or 2
    x[:, :: group or k] = 127
    for part in x.split(group or k, 1):
        part *= 2.0 ** torch.randint(0, 2, (m, 1), generator=generator)
    with cpu_level(level):
        got = ops.linear(x, ops.quantize_weight(w, "int8", group))
    assert torch.equal(got.long(), x.long() @ w.long().T)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("k", [131072, 131073])
def test_int8_of_the_longest_rows(level, k):
    """All products at their largest: the sum of 131072 is the last that fits."""
    x = torch.full((15, k), -3.0)
    w = torch.full((2, k), 5.0)
    w[1] = -5
    with cpu_level(level):
        got = ops.linear(x, ops.quantize_weight(w, "int8", None))
    assert torch.allclose(got, torch.tensor([-15.0 * k, 15.0 * k]).expand(15, 2), rtol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("group", [32, 64])
def test_float_rows_are_not_rounded(level, kind, group):
    generator = torch.Generator().manual_seed(8)
    for m, n, k in [*SHAPES, (3, 33, 1100), (90, 33, 300)]:
        x, w = torch.randn(m, k, generator=generator), torch.randn(n, k, generator=generator)
        with cpu_level(level):
            packed = ops.quantize_weight(w, kind, group, rows="float")
            got = ops.linear(x, packed)
            assert torch.equal(packed.unpack(), ops.quantize_weight(w, kind, group).unpack())
        assert packed.kind == kind and packed.rows == "float"
        reference = x.double() @ packed.unpack().double().T
        plain = ops.linear(x, ops.quantize_weight(packed.unpack(), "f32"))
        assert (got.double() - reference).abs().max() <= allowed_error(reference, plain, torch.float32)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("group", [32, 64])
def test_int4_equals_integers(level, shape, group):
    x, w = _integers(*shape, 0, torch.Generator().manual_seed(2))
    x[:, ::64] = 127
    w = torch.randint(-8, 8, w.shape, generator=torch.Generator().manual_seed(3)).float()
    w[:, ::32], w[:, 1::32] = -8, 7  # step 1, low -8 in every group
    if shape[2] % group:  # the last group needs both ends too
        w = torch.nn.functional.pad(w, (0, group - shape[2] % group))
        w[:, shape[2] :: 2], w[:, shape[2] + 1 :: 2] = -8, 7
        x = torch.nn.functional.pad(x, (0, w.shape[1] - shape[2]))
    with cpu_level(level):
        packed = ops.quantize_weight(w, "int4", group)
        assert torch.equal(packed.unpack(), w)
        got = ops.linear(x, packed)
    assert torch.equal(got.long(), x.long() @ w.long().T)


def _rounded_rows(x, group):
    """The rows as an integer product sees them."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % group)).unflatten(1, (-1, group))
    scale = padded.abs().amax(-1, keepdim=True) / 127
    rows = torch.where(scale > 0, (padded / scale).round() * scale, 0)
    return rows.flatten(1)[:, : x.shape[1]]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_integer_kinds_round_rows_and_weights_only(level, kind, dtype):
    generator = torch.Generator().manual_seed(4)
    for m, n, k in SHAPES:
        x = torch.randn(m, k, generator=generator).to(dtype)
        w = torch.randn(n, k, generator=generator)
        with cpu_level(level):
            packed = ops.quantize_weight(w, kind, 32)
            got = ops.linear(x, packed)
        reference = _rounded_rows(x.double(), 32) @ packed.unpack().double().T
        own = (_rounded_rows(x.float(), 32) @ packed.unpack().T).to(dtype)
        # A value on the border of two integers may round to either: one step of the row's scale.
        border = (x.double().abs().amax() / 127 * packed.unpack().abs().amax()).item()
        assert (got.double() - reference).abs().max() <= allowed_error(reference, own, dtype) + 0.02 * border


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["f32", "f16", "int8", "int4"])
def test_gated(level, kind):
    generator = torch.Generator().manual_seed(5)
    for m, n, k in SHAPES:
        x = torch.randn(m, k, generator=generator)
        gate, up = torch.randn(2, n, k, generator=generator)
        with cpu_level(level):
            woven = _core.pack_weight([gate, up], kind, 32, None, True)
            got = _core.linear(x, woven, "silu")
            single = [_core.pack_weight([w], kind, 32) for w in (gate, up)]
            parts = [_core.linear(x, w) for w in single]
        assert torch.equal(woven.unpack(), torch.cat([w.unpack() for w in single]))
        expected = torch.nn.functional.silu(parts[0].double()) * parts[1].double()
        own = torch.nn.functional.silu(parts[0]) * parts[1]
        assert (got.double() - expected).abs().max() <= allowed_error(expected, own, torch.float32)


def test_weights_below_each_other():
    parts = [torch.randn(n, 20) for n in (5, 40, 1)]
    biases = [torch.randn(len(p)) for p in parts]
    packed = _core.pack_weight(parts, "f32", 32, biases)
    assert torch.equal(packed.unpack(), torch.cat(parts))
    x = torch.randn(3, 20)
    expected = torch.nn.functional.linear(x.double(), torch.cat(parts).double(), torch.cat(biases).double())
    assert torch.allclose(_core.linear(x, packed).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind, options", [("f32", {}), ("f16", {}), *INTEGERS], ids=str)
def test_nan_and_infinity_go_through(level, kind, options):
    x = torch.randn(4, 70)
    x[1, 33], x[2, 69] = float("nan"), float("inf")
    with cpu_level(level):
        got = ops.linear(x, ops.quantize_weight(torch.randn(5, 70), kind, **options))
    assert got[[0, 3]].isfinite().all() and not got[1].isfinite().any() and not got[2].isfinite().any()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind, options", [("f32", {}), ("bf16", {}), *INTEGERS], ids=str)
def test_a_nan_weight_is_not_lost(level, kind, options):
    w = torch.randn(40, 70)
    w[1, 3], w[33, 69] = float("nan"), float("inf")
    with cpu_level(level):
        got = ops.linear(torch.randn(3, 70), ops.quantize_weight(w, kind, **options))
    finite = got.isfinite().all(0)
    assert finite.sum() == 38 and not finite[1] and not finite[33]


@pytest.mark.parametrize("kind, options", [("f32", {}), ("grid4", {}), ("grid8", {}), *INTEGERS], ids=str)
def test_nothing_to_sum_gives_the_bias(kind, options):
    packed = ops.quantize_weight(torch.zeros(40, 0), kind, bias=torch.ones(40), **options)
    for m in (0, 1, 30):
        assert torch.equal(ops.linear(torch.zeros(m, 0), packed), torch.ones(m, 40))


def test_numpy_and_strides():
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((2, 6, 6), dtype=np.float32)
    for view in (w[::-1], w.T, w[:, ::-1]):
        assert np.allclose(ops.linear(x[::2, ::-1], view), x[::2, ::-1] @ view.T, atol=1e-5)


def test_refusals():
    packed = ops.quantize_weight(torch.randn(4, 8))
    with pytest.raises(ValueError, match="linear: input has 7 columns, expected 8"):
        ops.linear(torch.randn(2, 7), packed)
    with pytest.raises(ValueError, match="linear: residual has shape"):
        ops.linear(torch.randn(2, 8), packed, residual=torch.randn(2, 5))
    with pytest.raises(ValueError, match="activation is 'tanh'"):
        ops.linear(torch.randn(2, 8), packed, activation="tanh")
    with pytest.raises(ValueError, match="beside a packed weight"):
        ops.linear(torch.randn(2, 8), packed, torch.zeros(4))
    with pytest.raises(TypeError, match="got a Tensor of torch"):
        ops.linear(torch.randn(2, 8).double(), packed)
    gated = _core.pack_weight([torch.randn(4, 8)] * 2, "f32", 32, None, True)
    with pytest.raises(TypeError, match="without gradients"):
        ops.linear(torch.randn(2, 8, requires_grad=True), gated)
    with pytest.raises(ValueError, match=r"linear: bias has shape \[5\], expected \[4\]"):
        ops.linear(torch.randn(2, 8), torch.randn(4, 8), torch.randn(5))
    with pytest.raises(TypeError, match="expected an activation of none, relu or relu6"):
        ops.linear(np.ones((2, 8)), np.ones((4, 8)), activation="silu")
    with pytest.raises(ValueError, match="kind is 'int3'"):
        ops.quantize_weight(torch.randn(4, 8), "int3")
    for kind, group in (("int4", 48), ("int4", None), ("int4", 96), ("int8", 48), ("int8", -32)):
        with pytest.raises(ValueError, match=f"group is {group or 0}"):
            ops.quantize_weight(torch.randn(4, 8), kind, group)
    with pytest.raises(ValueError, match="rows is 'int4', expected int8 or float"):
        ops.quantize_weight(torch.randn(4, 8), "int8", rows="int4")
    with pytest.raises(ValueError, match=r"weight has shape \[8\]"):
        ops.quantize_weight(torch.randn(8))
    for kind in ("exact", "f16"):
        with pytest.raises(TypeError, match="weight is int8"):
            ops.quantize_weight(np.zeros((4, 8), np.int8), kind)
    with pytest.raises(ValueError, match="bias has shape"):
        ops.quantize_weight(torch.randn(4, 8), bias=torch.zeros(5))

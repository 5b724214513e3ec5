"""Every way that products are made (csrc/ops/matmul.cpp), at every level, type and layout.

Small integers have exact sums in every order, so a result is right to the bit or wrong; only the tests of
rounding draw other numbers.
"""

import contextlib
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import honed
from honed import _core, ops
from honed.testing import allowed_error, cpu_level

LEVELS = _core.usable_levels()
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = ["rows", "columns", "steps", "apart", "repeated", "constant"]
ACTIVATIONS = {
    "none": lambda y: y,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda y: torch.nn.functional.gelu(y, approximate="tanh"),
    "silu": torch.nn.functional.silu,
}
# m, k, n: where the operands lie (up to 16 rows, 24 of dots, or a small b), then panels, then few columns
SHAPES = [
    (1, 7, 5),
    (1, 130, 300),
    (2, 65, 133),
    (5, 1, 1),
    (16, 33, 200),
    (19, 64, 40),
    (24, 1030, 9),
    (25, 385, 70),
    (29, 2, 33),
    (170, 100, 35),
    (90, 51, 7),
    (169, 33, 31),
    (31, 300, 1),
]


@contextlib.contextmanager
def threads(count):
    before = honed.get_num_threads()
    honed.set_num_threads(count)
    try:
        yield
    finally:
        honed.set_num_threads(before)


def integers(*shape, dtype=torch.float32, layout="rows", seed=0):
    """A matrix of integers from -3 to 3 with the strides of a layout."""
    generator = torch.Generator().manual_seed(seed)
    *lead, rows, cols = shape

    def draw(*sizes):
        return torch.randint(-3, 4, (*lead, *sizes), generator=generator).to(dtype)

    if layout == "columns":
        return draw(cols, rows).mT
    if layout == "steps":
        return draw(rows * 2, cols * 3)[..., 1::2, 2::3]
    if layout == "apart":  # no row begins at a multiple of a vector
        return draw(rows, cols + 3)[..., 1 : 1 + cols]
    if layout == "repeated":
        return draw(1, cols).expand(*lead, rows, cols)
    if layout == "constant":
        return draw(1, 1).expand(*lead, rows, cols)
    return draw(rows, cols)


def exact(a, b):
    return a.double() @ b.double()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layouts(shape, dtype):
    m, k, n = shape
    for of_a in LAYOUTS:
        for of_b in LAYOUTS:
            a = integers(m, k, dtype=dtype, layout=of_a)
            b = integers(k, n, dtype=dtype, layout=of_b, seed=1)
            expected = (0.5 * exact(a, b)).to(dtype)
            for level in LEVELS:
                with cpu_level(level):
                    got = ops.matmul(a, b, scale=0.5)
                assert torch.equal(got, expected), (level, of_a, of_b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_added(shape, dtype):
    m, k, n = shape
    for layout in LAYOUTS:
        x = integers(m, k, dtype=dtype, layout=layout)
        w = integers(n, k, dtype=dtype, seed=1)
        bias = integers(n, 1, dtype=dtype, layout=layout, seed=2)[:, 0]
        residual = integers(m, n, dtype=dtype, layout=layout, seed=3)
        plus = [
            integers(m, 5, dtype=dtype, layout=layout, seed=4),
            integers(5, n, dtype=dtype, layout=layout),
        ]
        expected = torch.relu(2 * exact(x, w.T) + exact(*plus) + bias) + residual
        for level in LEVELS:
            with cpu_level(level):
                got = _core.linear(x, w, bias, "relu", residual, 2.0, tuple(plus))
                alone = _core.linear(x, w, bias, "none", None, 1.0)
            assert torch.equal(got, expected.to(dtype)), (level, layout)
            assert torch.equal(alone, (exact(x, w.T) + bias).to(dtype)), (level, layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_blocks_of_rows_and_columns(dtype):
    """Operands past what is arranged at a time: 8 MB of rows, 16 MB (and 256 columns) of panels."""
    m, k, n = 175, 17000, 290
    a, b = integers(m, k, dtype=dtype, layout="columns"), integers(k, n, dtype=dtype, seed=1)
    bias, residual = integers(1, n, dtype=dtype)[0], integers(n, m, dtype=dtype).T
    plus = integers(m, 3, dtype=dtype), integers(3, n, dtype=dtype)
    expected = (exact(a, b) + exact(*plus) + bias + residual).to(dtype)
    for level in LEVELS:
        with cpu_level(level):
            assert torch.equal(_core.linear(a, b.T, bias, "none", residual, 1.0, plus), expected), level


def bound(a, b, dtype):
    """What any order of summation in float64 stays within, of the result and of the reference: twice
    K roundings of at most the sum of magnitudes."""
    return 2 * a.shape[-1] * torch.finfo(dtype).eps / 2 * (a.abs() @ b.abs())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [37, 384, 1500])
def test_rounding(dtype, k):
    generator = torch.Generator().manual_seed(5)
    for m, n in ((1, 140), (13, 70), (40, 65), (60, 9)):
        a, w = (torch.randn(rows, k, generator=generator, dtype=torch.float64).to(dtype) for rows in (m, n))
        reference, own = exact(a, w.T), a @ w.T
        for level in LEVELS:
            for b in (w.T, w.T.contiguous()):
                with cpu_level(level):
                    error = (ops.matmul(a, b).double() - reference).abs()
                if dtype == torch.float64:
                    assert (error <= bound(a, b, dtype)).all(), (level, m, n)
                else:
                    assert error.max() <= allowed_error(reference, own, dtype), (level, m, n)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(dtype, activation):
    generator = torch.Generator().manual_seed(6)
    for m, k, n in ((3, 40, 50), (40, 100, 45), (60, 33, 5)):
        x, w, bias, residual = (
            torch.randn(shape, generator=generator).to(dtype) for shape in ((m, k), (n, k), (n,), (m, n))
        )

        def torchs(cast, x=x, w=w, bias=bias, residual=residual):
            y = 0.3 * (x.to(cast) @ w.to(cast).T) + bias.to(cast)
            return ACTIVATIONS[activation](y) + residual.to(cast)

        reference, own = torchs(torch.float64), torchs(dtype)
        for level in LEVELS:
            with cpu_level(level):
                got = ops.linear(x, w, bias, activation=activation, residual=residual, scale=0.3)
            assert (got.double() - reference).abs().max() <= allowed_error(reference, own, dtype), level


def batches(dtype):
    """Pairs of operands whose leading dimensions are folded, repeated or walked through."""
    draw = functools.partial(integers, dtype=dtype)
    for m, k, n in ((1, 40, 33), (3, 5, 4), (20, 33, 37), (40, 16, 9)):
        w = draw(k, n, seed=1)
        many = draw(8, 3, m, k)
        yield many, w
        yield many, w.mT.contiguous().mT.expand(3, k, n)
        yield many, w.expand(8, 1, k, n)
        yield draw(m, k), w.expand(2, 1, k, n)  # the left one has fewer dimensions than its repetition
        yield draw(1, 1, m, k).expand(2, 1, m, k), w.expand(2, 1, k, n)
        yield draw(6, 1, m, k), w  # folds past a dimension of one
        yield draw(6, 2 * m, k)[:, :m], w  # rows that are not one step apart
        yield draw(6, 7, k)[:, -1:], w  # the last row of each
        yield draw(6, k, m).mT, w
        yield draw(1, k).expand(4, m, k), w
        yield draw(5, 1, m, k), draw(3, k, n, seed=2)
        yield draw(4, m, 3, k).transpose(1, 2), draw(4, n, 3, k, seed=2).permute(0, 2, 3, 1)
        yield draw(m, k), draw(7, 2, k, n, seed=2)
        yield draw(2, 2, m, k)[:, :1], draw(2, 3, k, n, seed=2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_batches(dtype):
    for number, (a, b) in enumerate(batches(dtype)):
        expected = exact(a, b).to(dtype)
        for level in LEVELS:
            with cpu_level(level):
                assert torch.equal(ops.matmul(a, b), expected), (level, number, a.shape, b.shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shapes", [
    ((0, 5), (5, 3)), ((3, 5), (5, 0)), ((3, 0), (0, 4)), ((40, 0), (0, 70)), ((0,), (0,)), ((0, 0), (0, 0)),
    ((2, 0, 3), (3, 4)), ((0, 2, 3), (0, 3, 4)), ((2, 3, 0), (2, 0, 4)), ((1, 2, 3), (0, 3, 4)),
], ids=str)  # fmt: skip
def test_nothing_to_multiply(shapes, dtype):
    a, b = (torch.ones(shape, dtype=dtype) for shape in shapes)
    for level in LEVELS:
        with cpu_level(level):
            assert torch.equal(ops.matmul(a, b), torch.matmul(a, b)), level


@pytest.mark.parametrize("m, n", [(1, 5), (3, 40), (20, 33), (200, 4)])
def test_no_inputs_give_what_is_added(m, n):
    x, w, bias, residual = torch.ones(m, 0), torch.ones(n, 0), torch.arange(n).float(), torch.ones(m, n)
    for plus in (None, (torch.ones(m, 0), torch.ones(0, n)), (torch.ones(m, 2), torch.ones(2, n))):
        more = 2 if plus is not None and plus[0].numel() else 0
        for level in LEVELS:
            with cpu_level(level):
                got = _core.linear(x, w, bias, "none", residual, 3.0, plus)
            assert torch.equal(got, bias.expand(m, n) + 1 + more), level


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_special_values(shape, dtype):
    """NaN and infinity reach the results that they must, and no other."""
    m, k, n = shape
    for layout in ("rows", "columns"):
        a, b = integers(m, k, dtype=dtype, layout=layout), integers(k, n, dtype=dtype, layout=layout, seed=1)
        a[m // 2, k - 1], a[m - 1, k // 2] = float("nan"), float("inf")
        b[0, n - 1], b[k // 2, n // 2] = float("-inf"), float("nan")
        expected = exact(a, b).to(dtype)
        for level in LEVELS:
            with cpu_level(level):
                got = ops.matmul(a, b)
            assert torch.equal(got.isnan(), expected.isnan()), (level, layout)
            assert torch.equal(got.nan_to_num(7), expected.nan_to_num(7)), (level, layout)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_past_the_range(shape):
    m, k, n = shape
    for dtype, big in ((torch.float16, 60000.0), (torch.bfloat16, 3e38), (torch.float32, 3e38)):
        a, b = torch.zeros(m, k, dtype=dtype), torch.ones(k, n, dtype=dtype)
        a[:, 0] = big
        b[0, ::2], b[0, 1::2] = 2, -2
        for level in LEVELS:
            with cpu_level(level):
                got = ops.matmul(a, b)
            assert (got[:, ::2] == float("inf")).all() and (got[:, 1::2] == float("-inf")).all(), level
    if k > 2:  # sums of float16 are float32: they may leave its range on the way
        a[:] = 0
        a = a.half()
        a[:, :2], a[:, 2] = 60000, -60000
        for level in LEVELS:
            with cpu_level(level):
                assert (ops.matmul(a, torch.ones(k, n).half()) == 60000).all(), level


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_subnormal_numbers(shape, dtype):
    """They count, but for the dot instructions of bfloat16, which take them for zero."""
    m, k, n = shape
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    a, b = integers(m, k, dtype=dtype), integers(k, n, dtype=dtype, seed=1)
    expected = (exact(a, b) * tiny).to(dtype)
    for level in LEVELS:
        with cpu_level(level):
            got = ops.matmul(a * tiny, b)
        dots = dtype == torch.bfloat16 and level == "avx512_bf16"
        assert torch.equal(got, expected) or (dots and not got.any()), level


def test_the_same_bits_on_any_number_of_threads():
    generator = torch.Generator().manual_seed(7)
    for dtype in DTYPES:
        for (m, k, n), lead in [
            *((shape, ()) for shape in SHAPES),
            ((20, 300, 40), (9,)),
            ((200, 900, 300), ()),
        ]:
            a, b = torch.randn(*lead, m, k, generator=generator), torch.randn(k, n, generator=generator)
            for left, right in (
                (a, b),
                (a.mT.contiguous().mT, b.T.contiguous().T),
                (a, b.expand(*lead, k, n)),
            ):
                results = []
                for count in (1, 2, 8):
                    with threads(count):
                        results.append(ops.matmul(left.to(dtype), right.to(dtype)))
                assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


sizes = st.one_of(st.integers(0, 5), st.sampled_from([15, 16, 17, 31, 32, 33, 63, 65, 96, 129]))


@st.composite
def stepped(draw, shape):
    """An array of any strides: axes in any order, steps of -3 to 3 but 0, axes that repeat."""
    steps = [draw(st.sampled_from([1, 1, -1, 2, -3])) for _ in shape]
    repeated = [size > 0 and draw(st.integers(0, 7)) == 0 for size in shape]
    order = draw(st.permutations(range(len(shape))))
    spans = [1 if once else size * abs(step) for size, step, once in zip(shape, steps, repeated, strict=True)]
    seed = draw(st.integers(0, 2**16))
    whole = np.random.default_rng(seed).integers(-3, 4, [spans[axis] for axis in order])
    return whole, tuple(np.argsort(order)), tuple(slice(None, None, step) for step in steps), tuple(shape)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_shapes_and_strides(data):
    m, k, n = (data.draw(sizes) for _ in range(3))
    lead = data.draw(st.lists(st.integers(0, 3), max_size=3))
    parts = []
    for rows, cols in ((m, k), (k, n)):
        kept = lead[data.draw(st.integers(0, len(lead))) :]
        kept = [data.draw(st.sampled_from([size, 1])) for size in kept]
        parts.append(data.draw(stepped([*kept, rows, cols])))
    dtype = data.draw(st.sampled_from([np.float64, np.float32, np.float16]))
    level = data.draw(st.sampled_from(LEVELS))
    arrays = [
        np.broadcast_to(whole.astype(dtype).transpose(order)[cut], shape)
        for whole, order, cut, shape in parts
    ]
    expected = (arrays[0].astype(float) @ arrays[1].astype(float)).astype(dtype)
    with cpu_level(level):
        assert np.array_equal(ops.matmul(*arrays), expected)
    if all(step.step > 0 for _, _, cut, _ in parts for step in cut):  # torch has no others
        tensors = [
            torch.from_numpy(whole).bfloat16().permute(order)[cut].expand(shape)
            for whole, order, cut, shape in parts
        ]
        with cpu_level(level):
            assert torch.equal(ops.matmul(*tensors), torch.from_numpy(expected.astype(float)).bfloat16())


def test_a_vector_with_steps_is_multiplied_where_it_lies():
    """Panels would take 32 times its size: 1.2 GB."""
    a, b = torch.ones(20_000_000)[::2], torch.ones(10_000_000)
    before = _peak()
    assert ops.matmul(a, b) == 10_000_000
    assert _peak() - before < 200 << 20


def _peak():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_second_products_are_checked():
    x, packed = torch.ones(3, 8), ops.quantize_weight(torch.ones(5, 8), "f32")
    for left, right in (((3, 2), (2, 4)), ((2, 2), (2, 5)), ((3, 2), (3, 5)), ((3, 2), (5,))):
        for weight in ((packed,), (torch.ones(5, 8), None)):
            with pytest.raises(ValueError, match="plus has shapes"):
                _core.linear(x, *weight, "none", None, 1.0, (torch.ones(left), torch.ones(right)))
    with pytest.raises(TypeError, match="plus is float64 and float32"):
        _core.linear(x, packed, "none", None, 1.0, (torch.ones(3, 2).double(), torch.ones(2, 5)))
    with pytest.raises(ValueError, match="plus beside an output of shape"):
        _core.matmul(torch.ones(2, 3, 8), torch.ones(8, 5), 1.0, (torch.ones(6, 2), torch.ones(2, 5)))


@pytest.mark.parametrize("n", [16, 96, 160])
@pytest.mark.parametrize("m", [49, 167, 169, 673, 1345, 2017, 6000])
def test_rows_in_blocks(m, n):
    """No row is left out, wherever blocks of rows end."""
    torch.manual_seed(m + n)
    a, b = torch.randn(m, 24), torch.randn(24, n)
    exact = a.double() @ b.double()
    error = (ops.matmul(a, b).double() - exact).abs().max()
    assert error <= allowed_error(exact, a @ b, torch.float32)

"""Products and packing read nothing outside their operands: these end (or begin) at a page without access."""

import numpy as np
import pytest
import torch

from honed import _core, ops
from honed.testing import cpu_level

LEVELS = _core.usable_levels()
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SHAPES = [
    (1, 1, 1),
    (1, 33, 37),
    (2, 31, 161),
    (7, 15, 47),
    (17, 40, 33),
    (45, 67, 66),
    (200, 35, 3),
    (170, 386, 35),
]


def _laid_out(shape, dtype, layout, guarded, at_end):
    """Small integers with unit rows, unit columns, neither, or rows that lie apart."""
    rows, cols = shape
    values = torch.randint(-3, 4, shape)
    strides = {"rows": (cols, 1), "columns": (1, rows), "steps": (3 * cols, 3), "apart": (cols + 5, 1)}
    view = torch.zeros(4 * rows * (cols + 5), dtype=dtype).as_strided(shape, strides[layout])
    return guarded(view.copy_(values), at_end)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_operands_of_products(shape, dtype, at_end, guarded):
    m, k, n = shape
    for of_a in ("rows", "columns", "steps", "apart"):
        for of_b in ("rows", "columns", "steps", "apart") if at_end else (of_a,):
            a = _laid_out((m, k), dtype, of_a, guarded, at_end)
            b = _laid_out((k, n), dtype, of_b, guarded, at_end)
            bias = _laid_out((1, n), dtype, of_a, guarded, at_end)[0]
            residual = _laid_out((m, n), dtype, of_b, guarded, at_end)
            left = _laid_out((m, 3), dtype, of_a, guarded, at_end)
            right = _laid_out((3, n), dtype, of_b, guarded, at_end)
            product = a.double() @ b.double()
            whole = product + left.double() @ right.double() + bias.double() + residual.double()
            for level in LEVELS:
                with cpu_level(level):
                    plain = ops.matmul(a, b)
                    more = _core.linear(a, b.T, bias, "none", residual, 1.0, (left, right))
                assert torch.equal(plain, product.to(dtype)), (level, of_a, of_b)
                assert torch.equal(more, whole.to(dtype)), (level, of_a, of_b)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_arrays_that_run_backwards(dtype, guarded):
    for m, k, n in SHAPES:
        arrays = [
            guarded(torch.randint(-3, 4, shape).to(getattr(torch, np.dtype(dtype).name)), at_end).numpy()
            for shape, at_end in (((m, k), True), ((k, n), False))
        ]
        for a in (arrays[0][::-1], arrays[0][:, ::-1], arrays[0][::-1, ::-1]):
            for b in (arrays[1][::-1], arrays[1][:, ::-1]):
                expected = (a.astype(float) @ b.astype(float)).astype(dtype)
                for level in LEVELS:
                    with cpu_level(level):
                        assert np.array_equal(ops.matmul(a, b), expected), (level, m, k, n)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "int8", "int4", "exact"])
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_packed_weights_and_their_rows(kind, dtype, guarded):
    for m, k, n in SHAPES:
        for layout in ("rows", "columns", "steps"):
            weight = _laid_out((n, k), dtype, layout, guarded, True)
            bias = _laid_out((1, n), dtype, layout, guarded, True)[0]
            x = _laid_out((m, k), dtype, "apart", guarded, True)
            residual = _laid_out((m, n), dtype, "apart", guarded, True)
            importance = guarded(torch.ones(k)) if kind == "int4" else None
            for level in LEVELS:
                with cpu_level(level):
                    packed = ops.quantize_weight(weight, kind, bias=bias, importance=importance)
                    got = ops.linear(x, packed, residual=residual)
                expected = x.double() @ packed.unpack().double().T + bias.double() + residual.double()
                if kind not in ("int8", "int4"):
                    assert torch.equal(got, expected.to(dtype)), (level, m, k, n)
                assert got.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_batches(dtype, guarded):
    """Many small matrices, which threads divide, and their broadcast partner."""
    for m, k, n in SHAPES[:-2]:
        a = guarded(torch.randint(-3, 4, (2, 5, m, k)).to(dtype))
        b = guarded(torch.randint(-3, 4, (5, n, k)).to(dtype))
        expected = (a.double() @ b.double().mT).to(dtype)
        for level in LEVELS:
            with cpu_level(level):
                assert torch.equal(ops.matmul(a, b.mT), expected), (level, m, k, n)

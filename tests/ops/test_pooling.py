"""What the specs of the poolings do not cover: indices, NaN, layouts of results, refusals."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from honed import _core, ops
from honed.testing import cpu_level

LAST = torch.channels_last
LEVELS = _core.usable_levels()


def _image(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize(
    "window",
    [(2,), (3, 2, 1), ((3, 5), (1, 3), (1, 2), (2, 1), True), ((13, 11),), (2, 1, 0, 3)],
)
def test_indices_are_torchs(level, dtype, layout, window):
    # Few values: most windows have several largest elements.
    x = _image(2, 19, 14, 37).mul(2).round().to(dtype).to(memory_format=layout)
    want, places = F.max_pool2d(x, *window, return_indices=True)
    with cpu_level(level):
        got, indices = ops.max_pool2d(x, *window, return_indices=True)
        assert torch.equal(ops.max_pool2d(x, *window), want)
    assert torch.equal(got, want)
    assert indices.dtype == torch.int64 and torch.equal(indices, places)


def test_indices_of_one_dimension_are_torchs():
    x = _image(2, 3, 2100).mul(2).round()
    for window in ((5, 3, 2, 1, True), (700,), (2, 1, 0, 900)):
        want, places = F.max_pool1d(x, *window, return_indices=True)
        got, indices = ops.max_pool1d(x, *window, return_indices=True)
        assert torch.equal(got, want) and torch.equal(indices, places)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_nan_and_infinities(level, layout):
    x = _image(2, 5, 9, 40)
    x.view(-1)[::17] = float("nan")
    x.view(-1)[::5] = float("-inf")
    x[0, 0] = float("-inf")
    x = x.to(memory_format=layout)
    want, places = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    with cpu_level(level):
        got, indices = ops.max_pool2d(x, 3, 2, 1, return_indices=True)
        torch.testing.assert_close(ops.max_pool2d(x, 3, 2, 1), want, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(indices, places)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_the_gradient_goes_where_the_indices_point(level, layout):
    x = _image(2, 5, 9, 40).mul(2).round().to(memory_format=layout).requires_grad_()
    found = []
    for op in (ops.max_pool2d, F.max_pool2d):
        y, indices = op(x, 3, 2, 1, return_indices=True)
        assert not indices.requires_grad
        weights = torch.arange(y.numel(), dtype=y.dtype).view(y.shape)
        with cpu_level(level):
            found.append(torch.autograd.grad(y, x, weights)[0])
    assert torch.equal(*found)  # whole numbers: exact
    assert found[0].stride() == x.stride()


_RESULTS = {
    "max": lambda o, x: o.max_pool2d(x, 3, 2, 1),
    "max_1d": lambda o, x: o.max_pool1d(x[:, :, 0], 2),
    "avg": lambda o, x: o.avg_pool2d(x, 2),
    "avg_1d": lambda o, x: o.avg_pool1d(x[:, :, 0], 2),
    "adaptive": lambda o, x: o.adaptive_avg_pool2d(x, 3),
    "whole": lambda o, x: o.adaptive_avg_pool2d(x, 1),
    "no_size": lambda o, x: o.adaptive_avg_pool2d(x, (0, 3)),
    "no_channels": lambda o, x: o.adaptive_avg_pool2d(x[:, :0], 2),
    "no_batch": lambda o, x: o.max_pool2d(x[:0], 2),
    "adaptive_1d": lambda o, x: o.adaptive_avg_pool1d(x[:, :, 0], 4),
    "strided": lambda o, x: o.max_pool2d(x[:, :, ::2, ::3], 2, 1),
    "unbatched": lambda o, x: o.avg_pool2d(x[1], 2),
}


@pytest.mark.parametrize("name", _RESULTS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_layouts_of_results(name, layout):
    x = _image(2, 6, 12, 15).to(memory_format=layout)
    got, want = (_RESULTS[name](where, x) for where in (ops, F))
    torch.testing.assert_close(got, want)
    if got.dim() == 4 and got.numel() and name != "strided":
        assert got.stride() == want.stride()


@pytest.mark.parametrize("name", ["max", "avg", "adaptive", "whole"])
def test_a_gradient_of_another_layout(name):
    x = _image(2, 6, 12, 15)
    found = []
    for where, layout in ((ops, LAST), (F, torch.contiguous_format)):
        t = x.to(memory_format=layout).requires_grad_()
        y = _RESULTS[name](where, t)
        found.append(torch.autograd.grad(y, t, torch.ones_like(y, memory_format=torch.contiguous_format))[0])
        assert found[-1].stride() == t.stride()
    torch.testing.assert_close(*found)


def test_arrays():
    x = _image(2, 3, 9, 8)
    a = x.numpy()
    for name, call in _RESULTS.items():
        if name != "strided":
            got = call(ops, a)
            assert type(got) is np.ndarray, name
            np.testing.assert_allclose(got, call(F, x).numpy(), rtol=1e-6, atol=1e-6)
    y, indices = ops.max_pool2d(a[:, :, ::-1], 2, return_indices=True)
    want, places = F.max_pool2d(x.flip(2), 2, return_indices=True)
    assert np.array_equal(y, want.numpy()) and np.array_equal(indices, places.numpy())
    with pytest.raises(TypeError, match=r"max_pool2d: input is int64, expected float64"):
        ops.max_pool2d(np.ones((1, 4, 4), np.int64), 2)


def test_other_types_get_torchs_answer():
    x = _image(1, 2, 4, 4).mul(9).long()
    assert torch.equal(ops.max_pool2d(x, 2), F.max_pool2d(x, 2))
    assert torch.equal(ops.avg_pool2d(x, 2), F.avg_pool2d(x, 2))
    assert torch.equal(ops.avg_pool1d(x[0], 2), F.avg_pool1d(x[0], 2))


def test_sequences_of_sizes():
    x = _image(1, 2, 8, 9)
    assert torch.equal(ops.max_pool2d(x, (2,), stride=(), padding=[1]), F.max_pool2d(x, 2, None, 1))
    assert torch.equal(ops.max_pool2d(x, torch.Size([2, 3])), F.max_pool2d(x, (2, 3)))
    assert torch.equal(ops.max_pool1d(x[0], (2,), (3,)), F.max_pool1d(x[0], 2, 3))
    assert torch.equal(ops.avg_pool2d(x, np.int64(2)), F.avg_pool2d(x, 2))
    assert torch.equal(ops.adaptive_avg_pool2d(x, (None, 2)), F.adaptive_avg_pool2d(x, (None, 2)))


_REFUSED = [
    (lambda x: ops.max_pool2d(x, 0), "max_pool2d: kernel_size is 0, expected more than 0"),
    (lambda x: ops.max_pool2d(x, 2, 0), "max_pool2d: stride is 0, expected more than 0"),
    (lambda x: ops.max_pool2d(x, 2, dilation=0), "max_pool2d: dilation is 0, expected more than 0"),
    (lambda x: ops.max_pool2d(x, 2, padding=2), "max_pool2d: padding is 2, expected 0 to half"),
    (lambda x: ops.max_pool2d(x, 2, padding=-1), "max_pool2d: padding is -1, expected 0 to half"),
    (lambda x: ops.max_pool1d(x[0], 2, 1, 2, 3), "max_pool1d: padding is 2, expected 0 to half"),
    (lambda x: ops.avg_pool2d(x, 2, padding=2), "avg_pool2d: padding is 2, expected 0 to half"),
    (lambda x: ops.max_pool2d(x, 9), "has 0 elements along a dimension"),
    (lambda x: ops.max_pool2d(x[0, 0], 2), "max_pool2d: input has shape [7, 6], expected 3 or 4"),
    (lambda x: ops.max_pool1d(x, 2), "max_pool1d: input has shape [2, 3, 7, 6], expected 2 or 3"),
    (lambda x: ops.max_pool2d(x[:, :0], 2), "max_pool2d: input has shape [2, 0, 7, 6], expected no size"),
    (lambda x: ops.avg_pool2d(x[:, :, :0], 2), "avg_pool2d: input has shape [2, 3, 0, 6], expected no size"),
    (lambda x: ops.max_pool2d(x, (2, 2, 2)), "max_pool2d: kernel_size is (2, 2, 2), expected a number"),
    (lambda x: ops.max_pool2d(x, 2, (1, 1, 1)), "max_pool2d: stride is (1, 1, 1), expected a number"),
    (lambda x: ops.avg_pool2d(x, 2, divisor_override=0), "avg_pool2d: divisor_override is 0, expected"),
    (lambda x: ops.adaptive_avg_pool2d(x, (3,)), "adaptive_avg_pool2d: output_size is (3,), expected"),
    (lambda x: ops.adaptive_avg_pool2d(x, -1), "adaptive_avg_pool2d: output_size is -1, expected 0 or"),
    (lambda x: ops.adaptive_avg_pool2d(x[0, 0], 1), "adaptive_avg_pool2d: input has shape [7, 6], expected"),
    (lambda x: ops.adaptive_avg_pool2d(x[:, :, :0], 1), "adaptive_avg_pool2d: input has shape [2, 3, 0, 6]"),
]


@pytest.mark.parametrize(("call", "message"), _REFUSED, ids=[message for _, message in _REFUSED])
def test_what_torch_refuses_is_refused(call, message):
    for x in (_image(2, 3, 7, 6), _image(2, 3, 7, 6).numpy()):
        with pytest.raises(ValueError, match=re.escape(message)):
            call(x)


def test_sizes_that_are_no_numbers():
    x = _image(1, 1, 4, 4)
    for bad in (2.0, None, True, "2"):
        with pytest.raises(TypeError, match="max_pool2d: kernel_size is"):
            ops.max_pool2d(x, bad)
    with pytest.raises(TypeError, match="adaptive_avg_pool2d: output_size is None"):
        ops.adaptive_avg_pool2d(x, None)
    with pytest.raises(ValueError, match="adaptive_avg_pool1d: output_size is"):
        ops.adaptive_avg_pool1d(x[0], (None,))


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_nothing_outside_is_read(at_end, dtype, guarded):
    for shape in ((1, 2, 5, 7), (2, 3, 4, 33)):
        for layout in (torch.contiguous_format, LAST):
            x = guarded(_image(*shape).to(dtype).to(memory_format=layout), at_end)
            for level in LEVELS:
                with cpu_level(level):
                    y, _ = ops.max_pool2d(x, 3, 2, 1, return_indices=True)
                    assert torch.equal(y, F.max_pool2d(x, 3, 2, 1))
                    ops.avg_pool2d(x, 3, 2, 1)
                    ops.adaptive_avg_pool2d(x, 2)

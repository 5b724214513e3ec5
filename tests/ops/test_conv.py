"""conv: operands and arguments as callers have them."""

import numpy as np
import pytest
import torch

from honed import _core, ops
from honed.testing import cpu_level

F = torch.nn.functional


@pytest.mark.parametrize("level", _core.usable_levels())
def test_expanded_operands_of_a_kernel_of_one(level):
    """A stride of 0 is no step from pixel to pixel: taken for none, rows were read outside of the tensor."""
    weight = torch.randint(-3, 4, (5, 3, 1, 1)).float()
    with cpu_level(level):
        for shape in ((2, 3, 7, 1), (2, 3, 1, 20), (2, 3, 1, 1)):
            x = torch.randint(-3, 4, shape).float().expand(2, 3, 7, 20)
            residual = x[:, :1].expand(2, 5, 7, 20)
            expected = F.conv2d(x, weight)
            assert torch.equal(ops.conv2d(x, weight), expected), shape
            dense = torch.zeros(2, 3, 7, 20)
            assert torch.equal(ops.conv2d(dense, weight, residual=residual), residual), shape
            wide = torch.nn.functional.conv_transpose2d(x, weight.transpose(0, 1), stride=3)
            assert torch.equal(ops.conv_transpose2d(x, weight.transpose(0, 1), stride=3), wide), shape


def test_whole_numbers_of_any_type():
    x, weight = torch.randn(1, 2, 6, 6), torch.randn(2, 2, 3, 3)
    expected = ops.conv2d(x, weight, stride=2, padding=1)
    for two, one in (
        (np.int64(2), np.int32(1)),
        (np.array([2, 2]), [np.int64(1), 1]),
        (torch.tensor(2), True),
    ):
        assert torch.equal(ops.conv2d(x, weight, stride=two, padding=one), expected)
    x = x.to("meta")  # goes to torch's own op, which takes no bool: none may be remembered
    assert ops.conv2d(x, weight.to("meta"), stride=2, padding=1).shape == expected.shape


@pytest.mark.parametrize("op", [ops.conv2d, ops.conv_transpose2d])
@pytest.mark.parametrize("value", [1.0, 1.5, None])
def test_what_is_no_whole_number_is_refused(op, value):
    x, weight = torch.randn(1, 2, 6, 6), torch.randn(2, 2, 3, 3)
    op(x, weight, padding=1)  # must not be remembered for 1.0
    with pytest.raises(TypeError, match=r"padding is .*, expected a whole number"):
        op(x, weight, padding=value)


def test_a_weight_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match="conv_transpose2d: weight has shape"):
        ops.conv_transpose2d(torch.randn(1, 2, 6, 6), torch.randn(2, 2, 3))


def test_arrays_under_autocast_and_of_float64():
    x, weight = np.ones((1, 2, 4, 4), np.float32), np.ones((3, 2, 3, 3), np.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.conv2d(x, weight).dtype == np.float32
    with pytest.raises(TypeError, match="conv: activation of float64"):
        ops.conv2d(x.astype(float), weight.astype(float), activation="gelu")


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_input_without_channels(kernel, layout):
    x = torch.empty(2, 0, 4, 5).contiguous(memory_format=layout)
    weight, bias = torch.empty(3, 0, kernel, kernel), torch.tensor([1.0, -2.0, 3.0])
    for w, b in ((weight, bias), (ops.quantize_weight(weight, bias=bias), None)):
        y = ops.conv2d(x, w, b, padding=kernel // 2, activation="relu")
        assert torch.equal(y, bias.relu().view(1, 3, 1, 1).expand(2, 3, 4, 5))

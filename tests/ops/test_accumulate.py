"""linear(accumulate="fp16"): within its bound everywhere, the usual sums where the CPU has no others."""

import numpy as np
import pytest
import torch

import honed
from honed import _core, ops
from honed.testing import cpu_level

SUM, U = 32, 2.0**-11  # products a float16 sum, its rounding


@pytest.mark.parametrize("level", _core.usable_levels())
@pytest.mark.parametrize("shape", [(1, 33, 65), (20, 64, 1024), (170, 40, 300)], ids=str)
def test_error_is_below_the_bound(level, shape):
    m, n, k = shape
    generator = torch.Generator().manual_seed(4)
    x, w, bias = (torch.randn(*s, generator=generator).half() for s in ((m, k), (n, k), (n,)))
    with cpu_level(level):
        packed = ops.quantize_weight(w, "f16", bias=bias)
        got = ops.linear(x, packed, accumulate="fp16")
        plain = ops.linear(x, packed)
        changes = honed.info().fp16_sums
        of_arrays = ops.linear(x.numpy(), packed, accumulate="fp16")
    assert torch.equal(got, plain) or changes
    assert np.array_equal(of_arrays, got.numpy())
    size = x.double().abs() @ w.double().abs().T
    bound = SUM * U / (1 - SUM * U) * size + -(-k // SUM) * SUM * 2.0**-25
    reference = x.double() @ w.double().T + bias.double()
    bound += (reference.abs() + bound) * U + k * 2.0**-24 * size  # of the output, of f32 sums
    assert ((got.double() - reference).abs() <= bound).all()


def test_other_operands_are_summed_as_always():
    x, w = torch.randn(5, 64), torch.randn(7, 64)
    assert torch.equal(ops.linear(x, w, accumulate="fp16"), ops.linear(x, w))
    packed = ops.quantize_weight(w.half(), "f16")
    assert torch.equal(ops.linear(x, packed, accumulate="fp16"), ops.linear(x, packed))


def test_gradients_flow():
    x = torch.randn(5, 64).half().requires_grad_()
    packed = ops.quantize_weight(torch.randn(7, 64).half(), "f16")
    ops.linear(x, packed, accumulate="fp16").sum().backward()
    assert torch.allclose(x.grad.float(), packed.unpack().sum(0).expand(5, 64), rtol=2e-3, atol=2e-3)


def test_layers_have_it():
    layer = honed.nn.Linear(64, 7).half()
    x = torch.randn(5, 64).half()
    with torch.no_grad():
        plain = layer(x)
        layer.accumulate = "fp16"
        close = torch.allclose(layer(x).float(), plain.float(), rtol=0.02, atol=0.02)
        assert close and (torch.equal(layer(x), plain) or honed.info().fp16_sums)
        layer.accumulate = "fp8"
        with pytest.raises(ValueError, match="accumulate is 'fp8', expected None or 'fp16'"):
            layer(x)


@pytest.mark.parametrize("accumulate", ["f16", "", 16, False])
def test_other_names_are_refused(accumulate):
    x = torch.randn(2, 4)
    with pytest.raises(ValueError, match=r"linear: accumulate is .*, expected None or 'fp16'"):
        ops.linear(x, x, accumulate=accumulate)

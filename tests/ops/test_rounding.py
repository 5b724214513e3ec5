"""Every level stores 16-bit results as torch rounds them: to nearest even, infinities and NaN kept."""

import pytest
import torch

from honed import _core, ops
from honed.testing import cpu_level


def _bits():
    """Floats of every sign and exponent (subnormals, infinities and NaN too) with significands at and
    around ties."""
    upper = torch.arange(1 << 16, dtype=torch.int64) << 16
    lower = torch.tensor([0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    lower = torch.cat([lower, lower.flip(0)])  # whole vectors and a rest at every level
    return (upper[:, None] + lower).to(torch.int32)


@pytest.mark.parametrize("level", _core.usable_levels())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stores(level, dtype):
    """The rotation of (1, 0) by tables (c, 0) is c, rounded once."""
    table = _bits().view(torch.float32)
    rows, half = table.shape
    x = torch.zeros(1, rows, 1, 2 * half, dtype=dtype)
    x[..., :half] = 1
    with cpu_level(level):
        ours = ops.rope(x, table, torch.zeros_like(table))[0, :, 0, :half]
    wanted = table.to(dtype)
    assert torch.equal(ours.isnan(), wanted.isnan())
    known = ~wanted.isnan()
    assert torch.equal(ours[known].view(torch.int16), wanted[known].view(torch.int16))

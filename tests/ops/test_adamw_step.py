"""adamw_step beyond its spec: mixtures of types, refusals, ends of buffers."""

import numpy as np
import pytest
import torch

from honed import _core, ops
from honed.testing import cpu_level


@pytest.mark.parametrize("level", _core.usable_levels())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_mixture_of_types(level, dtype):
    for grad, state, master in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 1, 1), (1, 1, 1)):
        kind = lambda wide: torch.float32 if wide else dtype  # noqa: E731
        p, g = torch.randn(77).to(dtype), torch.randn(77).to(kind(grad))
        m, v = (torch.rand(77).to(kind(state)) for _ in range(2))
        w = p.float() if master else None
        want = [t.double() for t in (p, g, m, v)]
        with cpu_level(level):
            ops.adamw_step([p], [g], [m], [v], step=3, lr=0.1, master=[w] if master else None)
        ops.adamw_step([want[0]], [want[1]], [want[2]], [want[3]], step=3, lr=0.1)
        for got, reference in ((p, want[0]), (m, want[2]), (v, want[3])):
            torch.testing.assert_close(got, reference.to(got.dtype))
        if master:
            assert torch.equal(w.to(dtype), p)


def _lists(*shape):
    return [[np.ones(shape)] for _ in range(4)]


def test_refusals():
    p, g, m, v = _lists(4)
    step = lambda *lists, **more: ops.adamw_step(*lists, **{"step": 1, **more})  # noqa: E731
    with pytest.raises(ValueError, match="adamw_step: 2 grads beside 1 params"):
        step(p, g * 2, m, v)
    with pytest.raises(ValueError, match=r"adamw_step: gradient 0 has shape \[3\]"):
        step(p, [np.ones(3)], m, v)
    with pytest.raises(TypeError, match="adamw_step: exp_avg 0 is float32 beside a parameter of float64"):
        step(p, g, [np.ones(4, np.float32)], v)
    with pytest.raises(ValueError, match="overlap"):
        step(p, g, m, m)
    with pytest.raises(ValueError, match="overlap"):
        step(p, p, m, v)
    both = np.ones(6)
    with pytest.raises(ValueError, match="overlap"):
        step([both[:4], both[2:]], *([np.ones(4), np.ones(4)] for _ in range(3)))
    with pytest.raises(ValueError, match="has gaps or repeats"):
        step([np.ones(8)[::2]], g, m, v)
    ones = [torch.ones(4)]
    with pytest.raises(ValueError, match="has gaps or repeats"):
        step([torch.ones(1).expand(4)], ones, ones, ones)
    frozen = np.ones(4)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="adamw_step: parameter 0 is read-only"):
        step([frozen], g, m, v)
    with pytest.raises(ValueError, match="adamw_step: step 0 is 0"):
        step(p, g, m, v, step=0)
    with pytest.raises(ValueError, match="betas are 1 and"):
        step(p, g, m, v, betas=(1.0, 0.9))
    with pytest.raises(TypeError, match="adamw_step: master 0"):
        step(p, g, m, v, master=[np.ones(4)])
    assert (p[0] == 1).all() and (m[0] == 1).all()  # a refusal comes before the first write
    step(p, g, m, v)
    assert (p[0] != 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_stays_in_its_buffers(guarded, dtype):
    for count in (1, 7, 17, 8193):
        for at_end in (True, False):
            lists = [[guarded(torch.rand(count).to(dtype), at_end)] for _ in range(4)]
            ops.adamw_step(*lists, step=1)

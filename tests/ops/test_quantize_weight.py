"""The rounding of weights: how far from the original, and what is kept exactly."""

import threading
import time

import pytest
import torch

from honed import _core, ops
from honed.testing import allowed_error, cpu_level

LEVELS = _core.usable_levels()


@pytest.mark.parametrize("level", LEVELS)
def test_int8_is_within_half_a_step(level):
    w = torch.randn(70, 131) * torch.logspace(-3, 3, 70)[:, None]
    with cpu_level(level):
        got = ops.quantize_weight(w, "int8").unpack()
    half = w.abs().amax(1, keepdim=True) / 254
    assert ((got - w).abs() <= half * (1 + 1e-5)).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("group", [32, 64])
def test_int4_beats_the_plain_range(level, group):
    w = torch.randn(40, 4 * group)
    with cpu_level(level):
        got = ops.quantize_weight(w, "int4", group).unpack()
    grouped = w.unflatten(1, (-1, group))
    low, high = grouped.aminmax(dim=-1, keepdim=True)
    step = (high - low) / 15
    plain = (((grouped - low) / step).round() * step + low).flatten(1)
    assert (got - w).square().mean() < 0.95 * (plain - w).square().mean()


@pytest.mark.parametrize("level", LEVELS)
def test_int4_keeps_a_four_bit_grid(level):
    step, low = torch.tensor([0.5, 0.0312]).half().float(), torch.tensor([-3.0, -0.1]).half().float()
    q = torch.randint(0, 16, (2, 64))
    q[:, ::32], q[:, 1::32] = 0, 15
    w = q * step[:, None] + low[:, None]
    with cpu_level(level):
        got = ops.quantize_weight(w, "int4", 32).unpack()
    assert torch.allclose(got, w, rtol=0, atol=2 * torch.finfo(torch.float16).eps * w.abs().max())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rows", ["int8", "float"])
def test_int4_beyond_the_range_of_float16(level, rows):
    """Large and tiny channels round as the same channels at ordinary size do."""
    w = torch.randn(70, 96, generator=torch.Generator().manual_seed(9))
    factor = 2.0 ** torch.linspace(-100, 100, 70).round()[:, None]
    x = torch.randn(20, 96, generator=torch.Generator().manual_seed(10))
    with cpu_level(level):
        plain, scaled = (ops.quantize_weight(v, "int4", rows=rows) for v in (w, w * factor))
        products = [ops.linear(x, packed) for packed in (plain, scaled)]
    assert torch.equal(scaled.unpack() / factor, plain.unpack())
    assert torch.equal(products[1] / factor.T, products[0])


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_zeros_and_constants(kind):
    w = torch.zeros(3, 64)
    w[1] = 0.25
    w[2] = -4
    assert torch.equal(ops.quantize_weight(w, kind).unpack(), w)


def _grid(bits, low, step, n=40, k=70, seed=0):
    """Weights on a grid in groups of 32, the ends of it in every group, as quantisers leave them."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(0, 2**bits - 1 + (bits == 4), (n, k), generator=generator).float()
    q[:, ::32], q[:, 1::32] = (0, 15) if bits == 4 else (254, 0)
    groups = -(-k // 32)
    step = (step * torch.rand(n, groups, generator=generator) + 1e-3).half().float()
    low = (low * torch.rand(n, groups, generator=generator)).half().float() if bits == 4 else -127 * step
    return q * step.repeat_interleave(32, 1)[:, :k] + low.repeat_interleave(32, 1)[:, :k]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["grid4", "grid8"])
def test_grids_are_found_and_multiplied_exactly(level, kind):
    generator = torch.Generator().manual_seed(11)
    for k in (32, 70, 1, 320, 1100):
        w = _grid(4, -3.0, 0.4, k=k) if kind == "grid4" else _grid(8, 0, 0.02, k=k)
        if k > 1:
            assert _core.pack_weight([w], "exact").kind == kind
        with cpu_level(level):
            packed = ops.quantize_weight(w, kind)
            assert torch.equal(packed.unpack(), w)
            for m in (1, 3, 9, 30):
                x = torch.randn(m, k, generator=generator)
                plain = ops.linear(x, ops.quantize_weight(w, "f32"))
                reference = x.double() @ w.double().T
                error = (ops.linear(x, packed).double() - reference).abs().max()
                assert error <= allowed_error(reference, plain, torch.float32)


def test_symmetric_grid_without_its_last_code():
    q = torch.randint(-7, 7, (6, 64)).float()
    q[:, ::32] = -8
    w = q * torch.tensor([0.25, -0.5, 0.0371, 1.0, -0.02, 3.0]).half().float()[:, None]
    assert _core.pack_weight([w], "exact").kind == "grid4"
    assert torch.equal(ops.quantize_weight(w, "grid4").unpack(), w)


def test_what_is_on_no_grid_is_refused():
    w = _grid(4, -3.0, 0.4)
    w[7, 40] += 1e-4
    assert _core.pack_weight([w], "exact").kind == "f32"
    with pytest.raises(ValueError, match="inputs 32 to 63 of a channel lie on no grid4 grid"):
        ops.quantize_weight(w, "grid4")


def test_exact_kind():
    half = torch.tensor([[1.0, 2**-24, 65504.0]])
    brain = torch.tensor([[1.0, 2**-100, 3e38]]).bfloat16().float()
    assert _core.pack_weight([half], "exact").kind == "f16"
    assert _core.pack_weight([brain], "exact").kind == "bf16"
    assert _core.pack_weight([half, brain], "exact").kind == "f32"
    assert _core.pack_weight([torch.tensor([[0.1]])], "exact").kind == "f32"
    assert _core.pack_weight([half.half()], "exact").kind == "f16"
    assert _core.pack_weight([brain.bfloat16()], "exact").kind == "bf16"
    assert _core.pack_weight([torch.tensor([[float("nan")]])], "exact").kind == "f32"


@pytest.mark.parametrize("level", LEVELS)
def test_importance_makes_the_product_more_exact(level):
    generator = torch.Generator().manual_seed(7)
    spread = torch.logspace(-1.5, 1.5, 256)[torch.randperm(256, generator=generator)]
    w, x = torch.randn(64, 256, generator=generator), torch.randn(200, 256, generator=generator) * spread
    errors = []
    for importance in (None, spread.square()):
        with cpu_level(level):
            rounded = ops.quantize_weight(w, "int4", importance=importance).unpack()
        errors.append(((x @ (rounded - w).T).square().mean()).item())
    assert errors[1] < 0.8 * errors[0]


def test_importance_is_checked():
    for bad in (
        torch.ones(7),
        torch.ones(8).double(),
        torch.full((8,), -1.0),
        torch.full((8,), float("nan")),
    ):
        with pytest.raises(ValueError, match="importance"):
            ops.quantize_weight(torch.randn(4, 8), "int4", importance=bad)


@pytest.mark.parametrize("rows", ["int8", "float"])
def test_scales_that_are_all_one(rows):
    """They are not kept."""
    w = torch.randint(-127, 128, (64, 40), generator=torch.Generator().manual_seed(0)).float()
    w[:, 0] = 127
    packed = ops.quantize_weight(w, "int8", rows=rows)
    assert packed.nbytes == 64 * 40 + (64 * 24 if rows == "float" else 0)
    assert torch.equal(packed.unpack(), w)
    x = torch.eye(40)
    assert torch.equal(ops.linear(x, packed), w.T)


def test_unpacking_lets_other_threads_run():
    packed = ops.quantize_weight(torch.ones(4096, 4096), "f32")
    turns, done = 0, threading.Event()

    def unpack():
        packed.unpack()
        done.set()

    thread = threading.Thread(target=unpack)
    thread.start()
    while not done.is_set():
        turns += 1
        time.sleep(0)
    thread.join()
    assert turns > 10

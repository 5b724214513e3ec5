"""Every op specification, on every CPU level this machine runs, at every dtype, against float64."""

import pytest
import torch

from honed import _core
from honed.testing import allowed_error, cpu_level, load_specs

SPECS = load_specs()
LEVELS = _core.usable_levels()


def _grid():
    for spec in SPECS.values():
        for level in LEVELS:
            for dtype in spec.dtypes:
                yield pytest.param(
                    spec, level, dtype, id=f"{spec.name}-{level}-{str(dtype).removeprefix('torch.')}"
                )


def _as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def check(spec, case, level, dtype, arrange=lambda t: t):
    cast, wide = spec.make(case, dtype)
    cast = {
        name: arrange(value) if isinstance(value, torch.Tensor) else value for name, value in cast.items()
    }
    with cpu_level(level):
        got = _as_tuple(spec.honed(cast, case.params))
    torchs = _as_tuple(spec.torch(cast, case.params))
    references = _as_tuple(spec.torch(wide, case.params))
    for out, own, reference in zip(got, torchs, references, strict=True):
        assert out.shape == reference.shape, f"{case.name}: shape {out.shape}, expected {reference.shape}"
        if not reference.is_floating_point() or spec.exact:
            assert torch.equal(out, reference.to(out.dtype)), case.name
            continue
        assert out.dtype == own.dtype, f"{case.name}: dtype {out.dtype}, expected {own.dtype}"
        reference = reference.double()
        finite = torch.isfinite(reference)
        assert torch.equal(out.double()[~finite].nan_to_num(7), reference[~finite].nan_to_num(7)), case.name
        error = (out.double() - reference)[finite].abs().max().item() if finite.any() else 0.0
        allowed = allowed_error(reference, own, own.dtype)
        assert error <= allowed, f"{case.name}: error {error:.3g}, allowed {allowed:.3g}"


@pytest.mark.parametrize(("spec", "level", "dtype"), list(_grid()))
def test_matches_float64(spec, level, dtype):
    for case in spec.cases:
        check(spec, case, level, dtype)


def _strided(t):
    """The same values in every second element of a larger buffer, off by one element."""
    if t.dim() == 0 or t.numel() == 0:
        return t
    wide = torch.full((*t.shape[:-1], 2 * t.shape[-1] + 1), 99, dtype=t.dtype)
    wide[..., 1::2] = t
    return wide[..., 1::2]


def _transposed(t):
    """The same values with the first two dimensions' strides swapped."""
    return t.transpose(0, 1).contiguous().transpose(0, 1) if t.dim() >= 2 else t


def _unaligned(t):
    """The same values one element past an aligned address."""
    flat = torch.empty(t.numel() + 1, dtype=t.dtype)[1:]
    return flat.copy_(t.reshape(-1)).view(t.shape)


@pytest.mark.parametrize("arrange", [_strided, _transposed, _unaligned])
@pytest.mark.parametrize(("spec", "level", "dtype"), list(_grid()))
def test_any_strides(spec, level, dtype, arrange):
    for case in spec.cases[:6]:
        check(spec, case, level, dtype, arrange)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_same_bits_on_any_thread_count(spec):
    for case in spec.cases:
        cast, _ = spec.make(case, spec.dtypes[0])
        results = []
        for threads in (1, 2):
            _core.set_num_threads(threads)
            try:
                results.append(_as_tuple(spec.honed(cast, case.params)))
            finally:
                _core.set_num_threads(0)
        for one, two in zip(*results, strict=True):
            assert torch.equal(one.nan_to_num(7), two.nan_to_num(7)), case.name

"""Every op specification, on every CPU level this machine runs, at every dtype, against float64."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from honed import _core
from honed.ops import _dispatch
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


def compare(what, out, own, reference, exact=False, rounding=0.0):
    """Against the reference, with what torch's own result at this type is allowed."""
    assert out.shape == reference.shape, f"{what}: shape {out.shape}, expected {reference.shape}"
    if not reference.is_floating_point() or exact:
        assert torch.equal(out, reference.to(out.dtype)), what
        return
    assert out.dtype == own.dtype, f"{what}: dtype {out.dtype}, expected {own.dtype}"
    reference = reference.double()
    finite = torch.isfinite(reference)
    assert torch.equal(out.double()[~finite].nan_to_num(7), reference[~finite].nan_to_num(7)), what
    error = (out.double() - reference)[finite].abs().max().item() if finite.any() else 0.0
    allowed = allowed_error(reference, own, own.dtype) + rounding
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g}"


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
        compare(case.name, out, own, reference, spec.exact)


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


def _gradients(spec, function, inputs, case, seed=1):
    """{input: gradient} of a random combination of the results."""
    inputs = {
        name: value.detach().clone().requires_grad_()
        if name in spec.gradients and value is not None
        else value
        for name, value in inputs.items()
    }
    total = 0
    for out in _as_tuple(function(inputs, case.params)):
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        if out.requires_grad:
            total = total + (out * weights.to(torch.float32).to(out.dtype)).sum()
    wanted = [name for name in spec.gradients if inputs[name] is not None]
    found = torch.autograd.grad(total, [inputs[name] for name in wanted], allow_unused=True)
    return dict(zip(wanted, found, strict=True))


def _differentiable():
    return [spec for spec in SPECS.values() if spec.gradients]


@pytest.mark.parametrize(("spec", "level", "dtype"), [each for each in _grid() if each.values[0].gradients])
def test_gradients_match_float64(spec, level, dtype):
    for case in spec.cases:
        cast, wide = spec.make(case, dtype)
        with cpu_level(level):
            got = _gradients(spec, spec.honed, cast, case)
        own = _gradients(spec, spec.torch, cast, case)
        reference = _gradients(spec, spec.torch, wide, case)
        # Gradients are sums that may cancel: what the terms lose shows in the largest of them.
        # In float64 the reference loses as much.
        finite = (g[torch.isfinite(g)] for g in reference.values())
        largest = max((g.abs().max().item() for g in finite if g.numel()), default=0.0)
        ulps = (
            8 * torch.finfo(torch.float64).eps
            if dtype == torch.float64
            else 4 * torch.finfo(torch.float32).eps
        )
        rounding = ulps * largest
        for name, gradient in got.items():
            compare(f"{case.name}: {name}", gradient, own[name], reference[name], rounding=rounding)


def _small(spec):
    """The first cases whose gradients by finite differences take no time."""
    sizes = lambda inputs: [v.numel() for v in inputs.values() if isinstance(v, torch.Tensor)]  # noqa: E731
    small = [case for case in spec.cases if 0 < max(sizes(spec.make(case, torch.float64)[0])) < 200]
    return small[:3]


@pytest.mark.parametrize("spec", _differentiable(), ids=lambda spec: spec.name)
def test_gradcheck(spec):
    assert torch.float64 in spec.dtypes
    for case in _small(spec):
        cast, _ = spec.make(case, torch.float64)
        names = [name for name in spec.gradients if cast[name] is not None]

        def of(*tensors, cast=cast, case=case, names=names):
            return spec.honed({**cast, **dict(zip(names, tensors, strict=True))}, case.params)

        tensors = [cast[name].requires_grad_() for name in names]
        assert torch.autograd.gradcheck(of, tensors)
        assert torch.autograd.gradgradcheck(of, tensors)


@pytest.mark.parametrize("spec", _differentiable(), ids=lambda spec: spec.name)
def test_second_derivatives_of_a_plain_gradient(spec):
    """The upstream gradient needs none itself, as in a gradient penalty."""
    for case in _small(spec)[:2]:
        found = []
        for function in (spec.honed, spec.torch):
            cast, _ = spec.make(case, torch.float64)
            names = [name for name in spec.gradients if cast[name] is not None]
            tensors = [cast[name].requires_grad_() for name in names]
            with sdpa_kernel(SDPBackend.MATH):  # torch's other ways have no second derivative
                out = _as_tuple(function(cast, case.params))[0]
            first = torch.autograd.grad(
                out, tensors, torch.ones_like(out), create_graph=True, allow_unused=True
            )
            total = sum(g.square().sum() for g in first if g is not None)
            if total.requires_grad:
                found.append(torch.autograd.grad(total, tensors, allow_unused=True))
            else:
                found.append([None] * len(names))
        for name, mine, torchs in zip(names, *found, strict=True):
            mine, torchs = (torch.zeros_like(cast[name]) if g is None else g for g in (mine, torchs))
            torch.testing.assert_close(mine, torchs, rtol=1e-9, atol=1e-9, msg=f"{case.name}: {name}")


@pytest.mark.parametrize("spec", _differentiable(), ids=lambda spec: spec.name)
def test_compiles_as_one_graph(spec):
    for case in _small(spec)[:1]:
        cast, _ = spec.make(case, torch.float32)
        torch._dynamo.reset()
        compiled = torch.compile(spec.honed, backend="aot_eager", fullgraph=True)
        got, want = (_gradients(spec, function, cast, case) for function in (compiled, spec.honed))
        for name in want:
            assert torch.equal(got[name], want[name]), name
        with torch.no_grad():
            for a, b in zip(
                _as_tuple(compiled(cast, case.params)),
                _as_tuple(spec.honed(cast, case.params)),
                strict=True,
            ):
                assert torch.equal(a, b)


class _Calls(TorchDispatchMode):
    """The calls of honed's ops in torch's registry."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "honed":
            self.made.append((func, args))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("spec", _differentiable(), ids=lambda spec: spec.name)
def test_opcheck(spec, monkeypatch):
    monkeypatch.setattr(_dispatch, "tracing", lambda: True)
    for case in _small(spec)[:2]:
        cast, _ = spec.make(case, torch.float32)
        with _Calls() as calls:
            _gradients(spec, spec.honed, cast, case)
        assert calls.made
        for op, args in calls.made:
            args = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, args)
            assert set(torch.library.opcheck(op, args).values()) == {"SUCCESS"}

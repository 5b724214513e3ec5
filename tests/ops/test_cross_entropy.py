"""cross_entropy and linear_cross_entropy beyond their specs: torch's corners, refusals, memory."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from honed import _core, ops
from honed.testing import allowed_error, cpu_level

inf = float("inf")


def _draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _targets(*shape, classes, seed=1):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def _with_gradient(function, x, *args, **kwargs):
    x = x.detach().clone().requires_grad_()
    loss = function(x, *args, **kwargs)
    (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
    return loss.detach(), gradient


def _same(got, want):
    torch.testing.assert_close(got, want, equal_nan=True)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("level", _core.usable_levels())
@pytest.mark.parametrize(
    "fill",
    [
        {0: -inf},
        {0: -inf, 1: -inf},
        dict.fromkeys(range(5), -inf),
        {1: inf},
        {1: inf, 2: inf},
        {3: float("nan")},
    ],
    ids=["a_class", "the_target", "all", "infinite", "two_infinite", "nan"],
)
def test_rows_that_are_not_finite(fill, level, reduction):
    x = _draw(3, 5)
    for column, value in fill.items():
        x[1, column] = value
    target = torch.tensor([2, 1, 4])
    want = _with_gradient(F.cross_entropy, x, target, reduction=reduction)
    with cpu_level(level):
        got = _with_gradient(ops.cross_entropy, x, target, reduction=reduction)
    for a, b in zip(got, want, strict=True):
        _same(a, b)


def test_an_impossible_class_in_the_first_of_many_pieces():
    x = _draw(2, 9000)
    x[:, :4096] = -inf
    target = torch.tensor([5000, 8999])
    for a, b in zip(
        _with_gradient(ops.cross_entropy, x, target), _with_gradient(F.cross_entropy, x, target), strict=True
    ):
        _same(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_smoothing_over_many_pieces(dtype):
    x, target, weight = _draw(4, 7001, dtype=dtype), _targets(4, classes=7001), _draw(7001).exp()
    options = {"label_smoothing": 0.2}
    wide = _with_gradient(F.cross_entropy, x.double(), target, weight.to(dtype).double(), **options)
    torchs = _with_gradient(F.cross_entropy, x, target, weight.to(dtype), **options)
    got = _with_gradient(ops.cross_entropy, x, target, weight.to(dtype), **options)
    for mine, own, reference in zip(got, torchs, wide, strict=True):
        assert (mine.double() - reference).abs().max() <= allowed_error(reference, own, dtype)


@pytest.mark.parametrize(
    ("size_average", "reduce"), [(None, False), (False, None), (True, True), (False, True), (True, False)]
)
@pytest.mark.filterwarnings("ignore:size_average and reduce")
def test_what_was_before_reduction(size_average, reduce):
    x, target = _draw(3, 5), torch.tensor([2, 1, 4])
    _same(
        ops.cross_entropy(x, target, None, size_average, -100, reduce),
        F.cross_entropy(x, target, None, size_average, -100, reduce),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_probabilities_are_torchs(smoothing):
    x, target = _draw(2, 5, 3), _draw(2, 5, 3, seed=2).softmax(1)
    got = _with_gradient(ops.cross_entropy, x, target, label_smoothing=smoothing)
    want = _with_gradient(F.cross_entropy, x, target, label_smoothing=smoothing)
    for a, b in zip(got, want, strict=True):
        _same(a, b)
    plain = ops.cross_entropy(x, target)
    lse = x.logsumexp(1)
    _same(ops.cross_entropy(x, target, z_loss=0.1), plain + 0.1 * lse.square().mean())


def test_a_target_that_is_no_class_is_named():
    x = _draw(3, 5).requires_grad_()
    for bad in (5, -1, 2**40):
        target = torch.tensor([0, bad, -100])
        with pytest.raises(IndexError, match=rf"cross_entropy: target {bad} at position 1 .* less than 5"):
            ops.cross_entropy(x, target)
        with pytest.raises(IndexError, match=rf"linear_cross_entropy: target {bad} at position 1"):
            ops.linear_cross_entropy(x, _draw(5, 5), target)
    ops.cross_entropy(x, torch.tensor([0, 5, 1]), ignore_index=5)


def test_refusals():
    x, target = _draw(3, 5), torch.tensor([2, 1, 4])
    with pytest.raises(ValueError, match="cross_entropy: reduction is 'max'"):
        ops.cross_entropy(x, target, reduction="max")
    with pytest.raises(ValueError, match=r"cross_entropy: target has shape \[2\]"):
        ops.cross_entropy(x, target[:2])
    with pytest.raises(ValueError, match=r"cross_entropy: weight has shape \[4\], expected \[5\]"):
        ops.cross_entropy(x, target, x[0, :4])
    with pytest.raises(ValueError, match=r"cross_entropy: label_smoothing is 1\.5"):
        ops.cross_entropy(x, target, label_smoothing=1.5)
    with pytest.raises(ValueError, match="cross_entropy: softcap is -1"):
        ops.cross_entropy(x, target, softcap=-1.0)
    with pytest.raises(TypeError, match="cross_entropy: target is float32, expected int64"):
        ops.cross_entropy(x.numpy(), x[:, 0].numpy())
    with pytest.raises(ValueError, match=r"linear_cross_entropy: linear_weight has shape \[5, 4\]"):
        ops.linear_cross_entropy(x, x.new_empty(5, 4), target)
    with pytest.raises(ValueError, match=r"linear_cross_entropy: linear_bias has shape \[4\]"):
        ops.linear_cross_entropy(x, x.new_empty(5, 5), target, linear_bias=x[0, :4])


def test_a_second_backward_and_scaled_gradients():
    x, target = _draw(4, 9).requires_grad_(), _targets(4, classes=9)
    loss = ops.cross_entropy(x, target)
    (first,) = torch.autograd.grad(loss, x, torch.tensor(3.0), retain_graph=True)
    (second,) = torch.autograd.grad(loss, x, torch.tensor(3.0), retain_graph=True)
    (plain,) = torch.autograd.grad(loss, x)
    assert torch.equal(first, second)
    _same(first, 3 * plain)
    x, w = _draw(4, 6).requires_grad_(), _draw(9, 6).requires_grad_()
    loss = ops.linear_cross_entropy(x, w, target, chunk=3)
    first = torch.autograd.grad(loss, (x, w), torch.tensor(3.0), retain_graph=True)
    second = torch.autograd.grad(loss, (x, w), torch.tensor(3.0), retain_graph=True)
    plain = torch.autograd.grad(loss, (x, w))
    for a, b, c in zip(first, second, plain, strict=True):
        assert torch.equal(a, b)
        _same(a, 3 * c)


def test_second_derivatives_of_the_loss_itself():
    """With create_graph the gradient that comes in, 1, needs none."""
    x, target = _draw(3, 5, dtype=torch.float64), torch.tensor([2, 1, 4])
    for function in (ops.cross_entropy, F.cross_entropy):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf, target), leaf, create_graph=True)
        (again,) = torch.autograd.grad(gradient.square().sum(), leaf)
        if function is ops.cross_entropy:
            got = again
    _same(got, again)


def test_logits_are_not_written():
    x, target = _draw(4, 9), _targets(4, classes=9)
    before = x.clone()
    _with_gradient(ops.cross_entropy, x, target)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_buffers_end_where_they_end(guarded, dtype):
    for classes in (1, 7, 17, 33, 2049):
        x, target = guarded(_draw(2, classes, dtype=dtype)), guarded(_targets(2, classes=classes))
        for at_end in (True, False):
            x = guarded(_draw(2, classes, dtype=dtype), at_end)
            for reduction in ("none", "mean"):
                leaf = x.detach().requires_grad_()
                ops.cross_entropy(leaf, target, label_smoothing=0.1, reduction=reduction).sum().backward()


def test_numpy():
    x, target, w = _draw(2, 5, 3).numpy(), _targets(2, 3, classes=5).numpy(), _draw(7, 5, seed=3).numpy()
    got = ops.cross_entropy(x, target, reduction="none", softcap=3.0)
    want = ops.cross_entropy(torch.from_numpy(x), torch.from_numpy(target), reduction="none", softcap=3.0)
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, want.numpy())
    got = ops.linear_cross_entropy(w, x[0].T, np.array([0, 1, 1, -100, 2, 0, 0]))
    want = F.cross_entropy(torch.from_numpy(w @ x[0]), torch.tensor([0, 1, 1, -100, 2, 0, 0]))
    _same(torch.tensor(float(got)), want)


def test_linear_options_weights_of_more_dimensions_and_probabilities_are_torchs():
    x, w = _draw(4, 6), _draw(9, 6)
    target = _targets(4, classes=9)
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2)
    _same(ops.linear_cross_entropy(x, w, target, options=options), F.cross_entropy(x @ w.T, target))
    spread = _draw(4, 9, seed=3).softmax(1)
    _same(ops.linear_cross_entropy(x, w, spread), F.cross_entropy(x @ w.T, spread))
    deep = _draw(9, 2, 6)
    target = _targets(4, 2, classes=9)
    _same(ops.linear_cross_entropy(x, deep, target), F.linear_cross_entropy(x, deep, target))


def test_linear_under_autocast():
    x, w, target = _draw(4, 6).requires_grad_(), _draw(9, 6).requires_grad_(), _targets(4, classes=9)
    with torch.autocast("cpu", torch.bfloat16):
        got = ops.linear_cross_entropy(x, w, target)
        want = F.cross_entropy(F.linear(x, w), target)
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want, atol=0.05, rtol=0.02)  # bf16 logits of size 5
    got.backward()
    assert x.grad.dtype == w.grad.dtype == torch.float32
    half, weight = _draw(4, 9, dtype=torch.bfloat16), _draw(9).exp()
    with torch.autocast("cpu", torch.bfloat16):
        for reduction in ("none", "mean"):
            got = _with_gradient(ops.cross_entropy, half, target, weight, reduction=reduction)
            want = _with_gradient(F.cross_entropy, half, target, weight, reduction=reduction)
            for a, b in zip(got, want, strict=True):
                assert a.dtype == b.dtype
                _same(a, b)


def test_only_the_gradients_that_are_wanted():
    x, w, b = _draw(4, 6), _draw(9, 6), _draw(9)
    target = _targets(4, classes=9)
    for wanted in range(1, 8):
        for reduction in ("mean", "none"):
            mine = [t.clone().requires_grad_(bool(wanted >> i & 1)) for i, t in enumerate((x, w, b))]
            torchs = [t.clone().requires_grad_(bool(wanted >> i & 1)) for i, t in enumerate((x, w, b))]
            ops.linear_cross_entropy(
                *mine[:2], target, linear_bias=mine[2], reduction=reduction, chunk=3
            ).sum().backward()
            F.cross_entropy(F.linear(*torchs), target, reduction=reduction).sum().backward()
            for a, c in zip(mine, torchs, strict=True):
                assert (a.grad is None) == (c.grad is None)
                if a.grad is not None:
                    _same(a.grad, c.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_classes_of_more_than_one_product(dtype):
    """Sums over blocks of classes and over chunks of rows are rounded once."""
    operands = [_draw(40, 24, dtype=dtype), (_draw(8500, 24) / 5).to(dtype), _draw(8500, dtype=dtype)]
    target = _targets(40, classes=8500)

    def gradients(function, tensors):
        leaves = [t.detach().clone().requires_grad_() for t in tensors]
        return torch.autograd.grad(function(*leaves), leaves)

    def torchs(x, w, b):
        return F.cross_entropy(F.linear(x, w, b), target)

    got = gradients(lambda x, w, b: ops.linear_cross_entropy(x, w, target, linear_bias=b, chunk=16), operands)
    own, reference = gradients(torchs, operands), gradients(torchs, [t.double() for t in operands])
    for mine, theirs, exact in zip(got, own, reference, strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - exact).abs().max() <= allowed_error(exact, theirs, dtype)


_PEAK = """
import sys, torch
from honed import ops
torch.manual_seed(0)
rows, inputs, classes = 1024, 64, 20000
x = torch.randn(rows, inputs, requires_grad=True)
w = torch.randn(classes, inputs, requires_grad=True)
t = torch.randint(0, classes, (rows,))
def loss(x, w, t):
    if sys.argv[1] == "torch":
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, w), t)
    return ops.linear_cross_entropy(x, w, t, chunk=64)
def memory(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) * 1024
loss(x[:8], w[:64], t[:8] % 64).backward()  # what only the first call needs
x.grad = w.grad = None
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again
before = memory("VmRSS")
loss(x, w, t).backward()
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc, not found here"
)
def test_the_logits_never_exist_whole():
    grown = {
        who: int(subprocess.run([sys.executable, "-c", _PEAK, who], capture_output=True, check=True).stdout)
        for who in ("torch", "honed")
    }
    logits, gradients = 4 * 1024 * 20000, 4 * 64 * (1024 + 20000)
    assert grown["torch"] > 2 * logits, "torch's peak is not what it was: measure differently"
    # A sixteenth of the logits, the gradients, and what products arrange: a few hundred kB of weights.
    assert grown["honed"] < logits / 16 + gradients + (16 << 20)
    assert grown["honed"] < grown["torch"] / 6

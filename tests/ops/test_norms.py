"""What the specs of the normalisations do not cover."""

import pytest
import torch
import torch.nn.functional as F

from honed import _core, ops
from honed.testing import allowed_error, cpu_level


@pytest.mark.parametrize("level", _core.usable_levels())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("columns", [50, 9000])
def test_a_mean_far_from_zero(level, dtype, columns):
    x = (torch.randn(3, columns, generator=torch.Generator().manual_seed(0)) * 3 + 1000).to(dtype)
    with cpu_level(level):
        got = ops.layer_norm(x, (columns,))
    want, own = F.layer_norm(x.double(), (columns,)), F.layer_norm(x, (columns,))
    assert (got.double() - want).abs().max() <= allowed_error(want, own, dtype)


@pytest.mark.parametrize("op", ["add_rms_norm", "add_layer_norm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sum_and_its_norm_are_the_two_ops(op, dtype):
    g = torch.Generator().manual_seed(0)
    x, r, w = (torch.randn(shape, generator=g).to(dtype) for shape in ((5, 33), (5, 33), (33,)))
    y, s = getattr(ops, op)(x, r, (33,), w)
    assert torch.equal(s, x + r)
    assert torch.equal(y, getattr(ops, op.removeprefix("add_"))(s, (33,), w))


@pytest.mark.parametrize("op", ["add_rms_norm", "add_layer_norm"])
@pytest.mark.parametrize("used", [(True, False), (False, True)])
def test_a_sum_of_which_one_result_is_used(op, used):
    x, r = (torch.randn(5, 33, dtype=torch.float64, requires_grad=True) for _ in range(2))
    total = lambda results: sum((out.cos().sum() for out, u in zip(results, used, strict=True) if u))  # noqa: E731
    got = torch.autograd.grad(total(getattr(ops, op)(x, r, (33,))), (x, r))
    norm = getattr(F, op.removeprefix("add_"))
    want = torch.autograd.grad(
        total((norm(x + r, (33,), eps=2.0**-52 if "rms" in op else 1e-5), x + r)), (x, r)
    )
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("op", ["rms_norm", "layer_norm"])
def test_dimensions_that_do_not_join_are_copied(op):
    x = torch.randn(3, 5, 4).transpose(1, 2)
    w = torch.randn(5, 4).T
    got = getattr(ops, op)(x, (4, 5), w)
    assert torch.equal(got, getattr(ops, op)(x.contiguous(), (4, 5), w.contiguous()))
    assert torch.equal(got, getattr(ops, op)(x.flatten(1), (20,), w.flatten()).view(3, 4, 5))


def test_group_norm_of_no_batch_has_gradients():
    x, w = torch.randn(0, 4, 3, requires_grad=True), torch.ones(4, requires_grad=True)
    dx, dw = torch.autograd.grad(ops.group_norm(x, 2, w).sum(), (x, w))
    assert dx.shape == x.shape and torch.equal(dw, torch.zeros(4))


def test_group_norm_keeps_channels_last():
    x = torch.randn(2, 4, 5, 6)
    got = ops.group_norm(x.to(memory_format=torch.channels_last), 2)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, ops.group_norm(x, 2))


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    "op",
    [
        lambda ops, x: ops.softmax(x, -1),
        lambda ops, x: ops.log_softmax(x, 0),
        lambda ops, x: ops.layer_norm(x, (6,)),
        lambda ops, x: ops.rms_norm(x, (6,)),
        lambda ops, x: ops.group_norm(x, 2),
    ],
)
def test_second_derivatives_of_a_sum(op, create):
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for where in (ops, F):
        t = x.clone().requires_grad_()
        first = torch.autograd.grad((op(where, t) ** 3).sum(), t, create_graph=create)[0]
        found.append(torch.autograd.grad(first.square().sum(), t)[0] if create else first)
        # A constant gradient of y, which itself needs none.
        if create:
            first = torch.autograd.grad(
                op(where, t), t, torch.arange(18.0).view(3, 6).double(), create_graph=True
            )
            found[-1] = found[-1] + torch.autograd.grad(first[0].cos().sum(), t)[0]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_softmax_of_a_wider_type_gives_a_gradient_of_the_input(op, dtype):
    x = torch.randn(3, 6).to(dtype).requires_grad_()
    for result in (torch.float32, torch.float64):
        y = op(x, 1, dtype=result)
        assert y.dtype == result
        (got,) = torch.autograd.grad(y.cos().sum(), x)
        own = getattr(F, op.__name__)
        (want,) = torch.autograd.grad(own(x, 1, dtype=result).cos().sum(), x)
        assert got.dtype == dtype
        torch.testing.assert_close(got, want)


def test_shapes_that_do_not_fit_are_named():
    x = torch.randn(2, 3, 4)
    for op in (ops.rms_norm, ops.layer_norm):
        with pytest.raises(
            ValueError, match=r"input has shape \[2, 3, 4\], expected its last dimension to be 3"
        ):
            op(x, (3,))
        with pytest.raises(ValueError, match=r"expected its last dimensions to be \[4, 3\]"):
            op(x, (4, 3))
        with pytest.raises(ValueError, match=r"weight has shape \[12\], expected \[3, 4\]"):
            op(x, (3, 4), torch.randn(12))
    with pytest.raises(ValueError, match=r"residual has shape \[3, 4\], expected input's, \[2, 3, 4\]"):
        ops.add_rms_norm(x, x[0], (4,))


def test_a_direct_call_with_wrong_arguments_is_refused():
    x = torch.randn(2, 4)
    with pytest.raises(TypeError, match=r"rms_norm: got 1 arguments, expected rms_norm\(Tensor input"):
        _core.rms_norm(x)
    with pytest.raises(TypeError, match="rms_norm: argument 1 is a NoneType"):
        _core.rms_norm(None, None, 1e-5, 1, 4)
    with pytest.raises(TypeError, match="must be real number"):
        _core.rms_norm(x, None, "a", 1, 4)
    assert _core.direct_rms_norm(x.requires_grad_(), None, 1e-5, 1, 4) is None

"""honed.train.AdamW and adamw_step: torch.optim.AdamW's answers, and what surrounds a step."""

import copy
import io
import pickle

import pytest
import torch

from honed import ops
from honed.testing import allowed_error
from honed.train import AdamW

_SHAPES = ((5,), (3, 7), (1,), (2, 3, 33), (9000,))


def _parameters(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in _SHAPES]


def _set_gradients(params, step):
    generator = torch.Generator().manual_seed(100 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def _train(optimizer, params, steps=4, first=0):
    for step in range(first, first + steps):
        _set_gradients(params, step)
        optimizer.step()


def _compare(mine, torchs, wide):
    for a, b, c in zip(mine, torchs, wide, strict=True):
        assert (a.double() - c).abs().max() <= allowed_error(c, b, b.dtype)


_OPTIONS = [
    {},
    {"weight_decay": 0.0, "lr": 0.1},
    {"amsgrad": True, "maximize": True},
    {"betas": (0.3, 0.6), "eps": 1e-4, "weight_decay": 0.5},
    {"lr": torch.tensor(0.02), "fused": True},
]


@pytest.mark.parametrize("options", _OPTIONS, ids=lambda o: "-".join(o) or "defaults")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_answers_of_torch(dtype, options):
    mine, torchs = _parameters(dtype), _parameters(dtype)
    wide = [torch.nn.Parameter(p.detach().double()) for p in mine]
    _train(AdamW(mine, **options), mine)
    _train(torch.optim.AdamW(torchs, **{**options, "fused": True}), torchs)
    exact = torch.optim.AdamW(wide, **options)
    for step in range(4):
        _set_gradients(torchs, step)
        for p, q in zip(wide, torchs, strict=True):
            p.grad = q.grad.double()
        exact.step()
    _compare(mine, torchs, wide)


def test_state_dicts_go_both_ways():
    for first, second in ((AdamW, torch.optim.AdamW), (torch.optim.AdamW, AdamW)):
        a, b = _parameters(), _parameters()
        one = first(a, amsgrad=True)
        _train(one, a)
        saved = io.BytesIO()
        torch.save(one.state_dict(), saved)
        saved.seek(0)
        with torch.no_grad():
            for p, q in zip(a, b, strict=True):
                q.copy_(p)
        two = second(b, amsgrad=True)
        two.load_state_dict(torch.load(saved))
        assert set(two.state[b[0]]) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
        _train(one, a, first=4)
        _train(two, b, first=4)
        for p, q in zip(a, b, strict=True):
            torch.testing.assert_close(p, q)
            assert one.state[p]["step"] == two.state[q]["step"] == 8


def test_copies_go_on_alike():
    params = _parameters()
    optimizer = AdamW(params)
    _train(optimizer, params)
    for duplicate in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        others, other = duplicate((params, optimizer))
        again, once_more = copy.deepcopy((params, optimizer))
        _train(other, others, first=4)
        _train(once_more, again, first=4)
        for p, q in zip(others, again, strict=True):
            assert torch.equal(p, q)


def test_groups_none_and_late_gradients():
    mine, torchs = _parameters(), _parameters()
    for kind, params in ((AdamW, mine), (torch.optim.AdamW, torchs)):
        optimizer = kind([{"params": params[:2], "lr": 0.1}, {"params": params[2:], "weight_decay": 0.0}])
        for step in range(3):
            _set_gradients(params, step)
            if step == 0:
                params[1].grad = params[4].grad = None
            optimizer.step()
        assert optimizer.state[params[1]]["step"] == 2
        assert optimizer.state[params[0]]["step"] == 3
    for p, q in zip(mine, torchs, strict=True):
        torch.testing.assert_close(p, q)


def test_a_closure_and_a_schedule():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW([p], lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 3
    schedule.step()
    moved = p.detach().clone()
    assert (moved < 0.6).all()
    optimizer.step(closure)
    assert torch.equal(p, moved)


def test_versions_count_and_packed_copies_notice():
    import honed

    layer = honed.nn.Linear(40, 40)
    x = torch.randn(3, 40)
    optimizer = AdamW(layer.parameters(), lr=0.1)
    with torch.no_grad():
        layer(x)
    version = layer.weight._version
    layer(x).square().sum().backward()
    optimizer.step()
    assert layer.weight._version > version
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    w = layer.weight
    loss = (w * w).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_other_strides():
    p, q = (torch.nn.Parameter(torch.randn(2, 3, 4, 4, generator=torch.manual_seed(0))) for _ in range(2))
    p.data = p.data.contiguous(memory_format=torch.channels_last)
    for kind, each in ((AdamW, p), (torch.optim.AdamW, q)):
        optimizer = kind([each])
        for gradient in (torch.ones(2, 3, 4, 4), torch.arange(96.0).view(2, 3, 4, 4)):
            each.grad = gradient
            optimizer.step()
    torch.testing.assert_close(p, q)
    gaps, r = (torch.nn.Parameter(torch.ones(4, 6)[:, ::2]) for _ in range(2))
    for kind, each in ((AdamW, gaps), (torch.optim.AdamW, r)):
        optimizer = kind([each, torch.nn.Parameter(torch.ones(1, dtype=torch.complex64))])
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    torch.testing.assert_close(gaps, r)


def test_masters_keep_small_steps():
    p = torch.nn.Parameter(torch.ones(10, dtype=torch.bfloat16))
    plain = torch.nn.Parameter(p.detach().clone())
    optimizer, without = AdamW([p], lr=1e-4, master_weights=True), AdamW([plain], lr=1e-4)
    for _ in range(100):
        p.grad, plain.grad = torch.ones_like(p), torch.ones_like(p)
        optimizer.step()
        without.step()
    assert torch.equal(plain, torch.ones_like(p))  # every step was below half the last place
    master = optimizer.state[p]["master"]
    assert master.dtype == torch.float32 and torch.equal(p, master.bfloat16())
    torch.testing.assert_close(master, torch.full((10,), 1 - 100 * 1e-4 * 1.01), atol=1e-4, rtol=0)
    other = torch.nn.Parameter(p.detach().clone())
    loaded = AdamW([other], lr=1e-4, master_weights=True)
    loaded.load_state_dict(optimizer.state_dict())
    for name in ("master", "exp_avg", "exp_avg_sq"):
        assert torch.equal(loaded.state[other][name], optimizer.state[p][name])
        assert loaded.state[other][name].data_ptr() != optimizer.state[p][name].data_ptr()


def test_masters_are_made_beside_a_state_without_them():
    """What torch's optimizer saved says nothing of masters; the constructor did."""
    p = torch.nn.Parameter(torch.ones(10, dtype=torch.bfloat16))
    p.grad = torch.ones_like(p)
    torchs = torch.optim.AdamW([p])
    torchs.step()
    optimizer = AdamW([p], master_weights=True)
    optimizer.load_state_dict(torchs.state_dict())
    optimizer.step()
    state = optimizer.state[p]
    assert state["step"] == 2
    assert state["master"].dtype == state["exp_avg"].dtype == torch.float32


def test_masters_that_torch_has_narrowed_are_made_again():
    p = torch.nn.Parameter(torch.ones(10, dtype=torch.bfloat16))
    p.grad = torch.ones_like(p)
    optimizer, torchs = AdamW([p], master_weights=True), torch.optim.AdamW([p], lr=0.5)
    optimizer.step()
    torchs.load_state_dict(optimizer.state_dict())
    with torch.no_grad():
        p += 1  # what the master does not know of
    optimizer.load_state_dict(torchs.state_dict())
    optimizer.step()
    master = optimizer.state[p]["master"]
    assert master.dtype == torch.float32 and torch.equal(p, master.bfloat16()) and (p > 1.5).all()


def test_a_negated_gradient():
    mine, torchs = _parameters(), _parameters()
    for kind, params in ((AdamW, mine), (torch.optim.AdamW, torchs)):
        _set_gradients(params, 0)
        params[0].grad = torch._neg_view(params[0].grad)
        kind(params).step()
    for p, q in zip(mine, torchs, strict=True):
        torch.testing.assert_close(p, q)
    states = [torch.zeros_like(mine[0]) for _ in range(2)]
    with pytest.raises(ValueError, match="grads 0 is a negated view"):
        ops.adamw_step([mine[0].detach()], [mine[0].grad], *([s] for s in states), step=1)


def test_a_gradient_scaler():
    mine, torchs = _parameters(), _parameters()
    for kind, params in ((AdamW, mine), (torch.optim.AdamW, torchs)):
        optimizer, scaler = kind(params), torch.amp.GradScaler("cpu", init_scale=64.0)
        for step in range(4):
            _set_gradients(params, step)
            for p in params:
                p.grad *= scaler.get_scale()
            if step == 2:
                params[0].grad[0] = torch.inf
            scaler.scale(torch.zeros((), requires_grad=True))
            scaler.step(optimizer)
            scaler.update()
        assert optimizer.state[params[0]]["step"] == 3
    for p, q in zip(mine, torchs, strict=True):
        torch.testing.assert_close(p, q)


def test_sparse_gradients_are_refused():
    p = torch.nn.Parameter(torch.ones(3, 3))
    p.grad = torch.eye(3).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        AdamW([p]).step()

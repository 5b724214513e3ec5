"""What the tests of folding share."""

import copy

import torch
from tests.hf.convnets import image, net

import honed
from honed.fold import Forward
from honed.testing import allowed_error

RESIDUAL = "residual"


def close(fast, plain, *inputs, dtype=torch.float32):
    """Judged by torch's own error against float64; without gradients."""
    wide = copy.deepcopy(plain).double()
    honed.unhone(wide)
    with torch.no_grad():
        got = fast(*(x.clone() for x in inputs))
        own = plain(*(x.clone() for x in inputs))
        exact = wide(*(x.double() for x in inputs))
    assert got.dtype == own.dtype and got.shape == own.shape
    error = (got.double() - exact).abs().max().item()
    # Folding rounds each weight once more than torch does.
    assert error <= 2 * allowed_error(exact, own, dtype), error
    return got


def forwards(model):
    found = [module.__dict__.get("forward") for module in model.modules()]
    return [forward for forward in found if isinstance(forward, Forward)]


def fused(model):
    return [one for forward in forwards(model) for _, one, _ in forward.plan.fused]


def runs(model, *inputs):
    """How many of the model's fused calls a call of it makes in one go, and in steps."""
    counts = {"once": 0, "apart": 0}
    calls = fused(model)
    regions = [region for forward in forwards(model) for region in forward.plan.regions]
    for region in regions:
        region.whole = False
    for one in calls:
        apart = one.apart

        def counted(x, residual, function=apart):
            counts["apart"] += 1
            return function(x, residual)

        one.apart = counted
        own = one._run

        def once(x, residual, function=own):
            y = function(x, residual)
            counts["once"] += y is not None
            return y

        one._run = once
    with torch.no_grad():
        model(*inputs)
    for region in regions:
        region.whole = True
    for one in calls:
        del one.apart
        one._run = getattr(one, one._run.__defaults__[0].__name__)
    return counts["once"], counts["apart"]


def pair(name=RESIDUAL, **options):
    plain = net(name)
    return plain, honed.hone(copy.deepcopy(plain), **options), image(name)

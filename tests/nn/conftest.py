"""What the tests of modules share."""

import copy

import torch

import honed.nn
from honed.testing import allowed_error


def twins(name, *args, **kwargs):
    """torch's module of that name and honed's, with the same parameters, none of them trivial."""
    torch.manual_seed(0)
    plain = getattr(torch.nn, name)(*args, **kwargs)
    with torch.no_grad():
        for parameter in plain.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    torch.manual_seed(0)
    fast = getattr(honed.nn, name)(*args, **kwargs)
    fast.load_state_dict(plain.state_dict())
    plain.load_state_dict(fast.state_dict())
    return plain, fast


def evaluated(module, args, kwargs, gradients):
    """Everything a call gives, by name: outputs and gradients of floating inputs and parameters."""
    held = (*module.parameters(), *module.buffers())
    dtype = next((t.dtype for t in held if t.is_floating_point()), None)
    made, leaves = {}, {}

    def given(name, x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            return x
        if id(x) not in leaves:  # the same tensor twice stays the same tensor
            x_ = x.to(dtype or x.dtype).clone()
            leaves[id(x)] = name, x_.requires_grad_() if gradients and "mask" not in name else x_
        return leaves[id(x)][1]

    args = [given(str(i), x) for i, x in enumerate(args)]
    kwargs = {name: given(name, x) for name, x in kwargs.items()}
    module.zero_grad()
    with torch.set_grad_enabled(gradients):
        out = module(*args, **kwargs)
    outs = [x for x in (out if isinstance(out, tuple) else (out,)) if x is not None]
    made.update({f"output {i}": x.detach() for i, x in enumerate(outs)})
    if gradients:
        generator = torch.Generator().manual_seed(5)
        sum((x * torch.randn(x.shape, generator=generator).to(x.dtype)).sum() for x in outs).backward()
        made.update({f"gradient of {n}": x.grad for n, x in leaves.values() if x.requires_grad})
        made.update({f"gradient of {n}": p.grad for n, p in module.named_parameters()})
    return made


def agree(plain, fast, *args, gradients=False, **kwargs):
    """honed's results are torch's, judged by torch's own error against float64; returns honed's."""
    got, own = evaluated(fast, args, kwargs, gradients), evaluated(plain, args, kwargs, gradients)
    dtype = own["output 0"].dtype
    wide = tuple(x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args)
    if len(args) > 1:  # what was one tensor stays one
        wide = tuple(wide[next(j for j, y in enumerate(args) if y is x)] for x in args)
    wide_kwargs = {
        n: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for n, x in kwargs.items()
    }
    exact = evaluated(copy.deepcopy(plain).double(), wide, wide_kwargs, gradients)
    judged, narrow = own, 1.5  # a module is several ops, and their roundings add up
    if dtype == torch.float64:  # where torch is the reference itself, its float32 error says what is usual
        judged = evaluated(copy.deepcopy(plain).float(), args, kwargs, gradients)
        # Twice that: the reference errs as much.
        dtype, narrow = torch.float32, 2 * torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    assert got.keys() == own.keys()
    for name, expected in own.items():
        if expected is None:
            assert got[name] is None, name
            continue
        assert got[name].shape == expected.shape and got[name].dtype == expected.dtype, name
        nan = expected.isnan()
        assert torch.equal(got[name].isnan(), nan), name
        error = (got[name].double() - exact[name])[~nan].abs().max().item()
        assert error <= narrow * allowed_error(exact[name], judged[name], dtype), f"{name}: {error}"
    return got

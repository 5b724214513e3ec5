"""Native or torch's own: the one decision that every op makes first."""

from __future__ import annotations

import sys

from honed._lib import _core, torch

if torch is not None:
    _PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
    _FLOATS = frozenset((torch.float32, torch.float16, torch.bfloat16))
    _is_compiling = torch.compiler.is_compiling
    _grad_enabled = torch.is_grad_enabled
else:
    _PLAIN = _FLOATS = frozenset()


def runs_natively(*tensors) -> bool:
    """True where honed's kernel takes these tensors (``None`` is passed over).

    Not so, and then torch's own op runs: a tensor that needs a gradient while gradients are on, a tensor
    subclass, another device, a negated view, an element type without a kernel, ``torch.compile`` tracing.
    NumPy arrays always run natively.
    """
    if torch is None or type(tensors[0]) not in _PLAIN:
        return not _is_torch(tensors[0])
    if _is_compiling():
        return False
    grad = _grad_enabled()
    for t in tensors:
        if t is None:
            continue
        if type(t) not in _PLAIN or t.dtype not in _FLOATS or not t.is_cpu or t.is_neg() or (grad and t.requires_grad):
            return False
    return True


def _is_torch(value) -> bool:
    return torch is not None and isinstance(value, torch.Tensor)


_told = set()


def fall_back(name: str, function, *args, **kwargs):
    """Runs torch's own op; HONED_VERBOSE=1 says so once an op."""
    if _core.verbose() and name not in _told:
        _told.add(name)
        print(f"honed: {name}: ran torch's own op (see runs_natively for the reasons)", file=sys.stderr)
    return function(*args, **kwargs)

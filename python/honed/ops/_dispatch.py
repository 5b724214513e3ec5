"""Native or torch's own: the one decision that every op makes first."""

from __future__ import annotations

import sys

from honed._lib import _core, torch

multiplies = _core.multiplies  # the same question for products, with an answer about gradients

if torch is not None:
    _core.set_torch(torch)
    # True while torch.compile traces; the tensors that torch.export traces with are a subclass.
    is_compiling = torch.compiler.is_dynamo_compiling
    _takes = _core.takes

    def runs_natively(first, second=None, third=None, *more) -> bool:
        """True where honed's kernel takes these tensors (``None`` is passed over).

        Not so, and then torch's own op runs: a tensor that needs a gradient while gradients are on, a tensor
        subclass, a tensor without memory (meta, functorch's), another device, a negated view, an element type
        without a kernel, ``torch.compile`` and ``torch.jit.trace``. NumPy arrays always run natively.
        """
        return not is_compiling() and _takes(first, second, third) and (not more or _takes(*more))

else:

    def runs_natively(*tensors) -> bool:
        """True: without torch there are only arrays."""
        return True

    def is_compiling() -> bool:
        """False: without torch there is no compiler."""
        return False


_told = set()
_verbose = _core.verbose()  # read here: torch.compile cannot trace a call into the extension


def fall_back(name: str, function, *args, **kwargs):
    """Runs torch's own op; HONED_VERBOSE=1 says so once an op."""
    if _verbose and name not in _told:
        _told.add(name)
        print(f"honed: {name}: ran torch's own op (see runs_natively for the reasons)", file=sys.stderr)
    return function(*args, **kwargs)

"""Native or torch's own: the one decision that every op makes first."""

from __future__ import annotations

import sys

from honed._lib import _core, torch

multiplies = _core.multiplies  # the same question for products, with an answer about gradients
answers = _core.answers  # the same question for ops with gradients: 1 yes, 2 yes with a gradient, 0 no

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

    # True while torch.compile or torch.export reads the program.
    tracing = torch.compiler.is_compiling
    _real = (torch.float32, torch.float16, torch.bfloat16)

    def answer(*tensors) -> int:
        """Whether a kernel takes these tensors (``None`` is passed over), also while tracing.

        1: it does, as :func:`runs_natively` says, and float64 where all tensors are float64. 2: it does,
        and a gradient is wanted. 0: torch's own op runs.
        """
        if not is_compiling():
            how = answers(*tensors)
            if how or not tracing():
                return how
        given = [t for t in tensors if t is not None]
        wide = given[0].dtype == torch.float64
        return traced_answer(given, lambda dtype: dtype == torch.float64 if wide else dtype in _real)

    def traced_answer(given, fits) -> int:
        """That of :func:`answer` while tracing, where ``fits`` says which element types a kernel takes."""
        plain = (torch.Tensor, torch.nn.Parameter)
        if any(
            not fits(t.dtype)
            or t.device.type != "cpu"
            or t.is_sparse
            or not (type(t) in plain or torch.compiler.is_exporting())
            for t in given
        ):
            return 0
        return 2 if torch.is_grad_enabled() and any(t.requires_grad for t in given) else 1

    def function(name: str):
        """``_core``'s function of that name; while tracing, torch's op of the same arguments."""
        kernel = getattr(_core, name)

        def call(*args):
            return getattr(torch.ops.honed, name).default(*args) if tracing() else kernel(*args)

        return call

    def direct(name: str):
        """The same function where a kernel takes the tensors and no gradient is wanted, else ``None``; not to
        be called while :func:`is_compiling`."""
        return getattr(_core, "direct_" + name)

else:

    def runs_natively(*tensors) -> bool:
        """True: without torch there are only arrays."""
        return True

    def answer(*tensors) -> int:
        """1: without torch there are only arrays."""
        return 1

    def function(name: str):
        """``_core``'s function of that name."""
        return getattr(_core, name)

    direct = function

    def is_compiling() -> bool:
        """False: without torch there is no compiler."""
        return False

    tracing = is_compiling


_told = set()
_verbose = _core.verbose()  # read here: torch.compile cannot trace a call into the extension


def fall_back(name: str, function, *args, **kwargs):
    """Runs torch's own op; HONED_VERBOSE=1 says so once an op."""
    if _verbose and name not in _told:
        _told.add(name)
        print(f"honed: {name}: ran torch's own op (see runs_natively for the reasons)", file=sys.stderr)
    return function(*args, **kwargs)

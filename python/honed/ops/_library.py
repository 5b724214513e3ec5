"""honed's ops in torch's registry, where ``torch.compile`` and ``torch.export`` find them.

Only traced code calls them. There is no gradient at this level, because registering one makes every call
three times slower: the functions in ``honed.ops`` bring their own.
"""

import torch

from honed._lib import _core
from honed.ops._activations import ACTIVATIONS


def _linear(input, weight, bias, activation, residual, scale):
    return _core.linear(input, weight, bias, ACTIVATIONS[activation], residual, scale)


def _linear_shape(input, weight, bias, activation, residual, scale):
    torch._check(weight.dim() == 2, lambda: f"linear: weight has shape {weight.shape}, expected 2 dimensions")
    torch._check(
        input.shape[-1] == weight.shape[1],
        lambda: f"linear: input has shape {input.shape} and weight {weight.shape}, expected equal columns",
    )
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


def _matmul_shape(input, other, scale):
    return input.new_empty(torch.matmul(input, other).shape)


_shapes = {}  # op -> its result, without its elements
_kept = []  # an op lives as long as the library that holds it


def result_of(name: str):
    """Declares the decorated function as the shape of op ``name``: its arguments to an empty result."""

    def declare(function):
        _shapes[name] = function
        return function

    return declare


result_of("linear")(_linear_shape)
result_of("matmul")(_matmul_shape)


def register(namespace: str = "honed", native: bool = True) -> None:
    """Defines every op of ``csrc/bindings`` that has a schema as ``torch.ops.<namespace>.<op>``.

    Args:
        native: by torch's C shims; otherwise, and where torch lacks them, by ``torch.library.Library``, which
            costs 1 us more a call.
    """
    done = _core.register_torch_ops(namespace) if native else []
    library = torch.library.Library(namespace, "FRAGMENT")
    for schema in _core.torch_schemas():
        name = schema.partition("(")[0]
        if name not in done:
            library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
            library.impl(name, _linear if name == "linear" else _python_kernel(name), "CPU")
        torch.library.register_fake(f"{namespace}::{name}", _shapes[name], lib=library)
    _kept.append(library)


def _python_kernel(name):
    """The function of ``_core``, with an empty tensor for a result that is not wanted."""
    kernel = getattr(_core, name)

    def run(*args):
        results = kernel(*args)
        if isinstance(results, torch.Tensor):
            return results
        return tuple(torch.empty(0) if each is None else each for each in results)

    return run

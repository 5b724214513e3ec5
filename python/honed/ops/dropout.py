"""Dropout whose mask is made of a seed and never stored."""

import numpy as np

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function

if torch is not None:
    from honed.ops._torch.dropout import Dropout

_run = function("dropout")


def dropout(input, p=0.5, training=True, inplace=False, *, seed=None):
    """``y = x / (1 - p)`` where an element is kept, else 0; each is dropped with probability ``p``.

    Args:
        input: any shape, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
        p: probability, from 0 to 1.
        training: ``False`` returns ``input``, as ``p = 0`` does.
        inplace: ``True`` goes to torch's own op.
        seed: a whole number of 64 bits, or an int64 tensor of one element, that decides the mask: it depends
            on the seed and on an element's place in the flattened ``input``, not on strides or threads.
            ``None`` draws one of torch's default generator (NumPy's for an array), which
            ``torch.manual_seed`` sets.

    Returns:
        A contiguous tensor like ``input``; what was dropped is 0 even where it was infinite. Its gradient is
        the same function of the gradient of y.

    Raises:
        ValueError: another ``p``; a seed where torch's own op has to run. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout.html

    >>> import numpy as np
    >>> dropout(np.full(8, 3, dtype=np.float32), 0.25, seed=1).tolist()
    [4.0, 4.0, 4.0, 4.0, 0.0, 4.0, 0.0, 0.0]
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is {p}, expected at least 0 and at most 1")
    how = answer(input) if not inplace else 0
    if how and (not training or p == 0):
        return input
    if how:
        seed = _seed(seed, torch is not None and isinstance(input, torch.Tensor))
        return _run(input, seed, p) if how == 1 else Dropout.apply(input, seed, p)
    if torch is None or not isinstance(input, torch.Tensor):
        raise ValueError("dropout: inplace is True, expected False for an array")
    if seed is not None:
        raise ValueError("dropout: seed is given where torch's own op runs, expected None")
    return fall_back("dropout", torch.nn.functional.dropout, input, p, training, inplace)


def _seed(seed, of_torch):
    """One int64."""
    if not of_torch:
        return np.array(np.random.randint(-(2**63), 2**63) if seed is None else seed, np.int64)
    if seed is None:
        return torch.randint(2**63 - 1, ())
    return seed if isinstance(seed, torch.Tensor) else torch.tensor(seed, dtype=torch.int64)

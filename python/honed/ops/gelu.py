"""The GELU activation."""

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back, function

if torch is not None:
    from honed.ops._torch.gelu import Gelu

_run = function("gelu")


def gelu(input, approximate="none"):
    """``y = x P(x)``, ``P`` the standard normal distribution function ``(1 + erf(x / sqrt(2))) / 2``.

    Args:
        input: any shape, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
        approximate: ``"none"``, or ``"tanh"`` for
            ``P(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2``.

    Returns:
        A tensor like ``input``, with its strides where its memory has no gaps, else contiguous. Its gradient
        is ``g (P(x) + x P'(x))``, g that of y.

    Raises:
        ValueError: another ``approximate``. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.gelu.html

    >>> import numpy as np
    >>> gelu(np.array([0.0, 1.0], dtype=np.float32)).round(4).tolist()
    [0.0, 0.8413000106811523]
    """
    if approximate != "none" and approximate != "tanh":
        raise ValueError(f"gelu: approximate is {approximate!r}, expected 'none' or 'tanh'")
    how = answer(input)
    if how == 1:
        return _run(input, approximate == "tanh")
    if how == 2:
        return Gelu.apply(input, approximate == "tanh")
    return fall_back("gelu", torch.nn.functional.gelu, input, approximate=approximate)

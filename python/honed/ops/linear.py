"""Matrix product with a weight."""

from honed._lib import _core, torch
from honed.ops._dispatch import fall_back, runs_natively
from honed.ops.quantize_weight import quantize_weight


def linear(input, weight, bias=None, *, activation="none", residual=None):
    """``y = activation(input @ weight.T + bias) + residual``.

    Args:
        input: ``(..., K)``, float32, float16 or bfloat16; a torch tensor or NumPy array.
        weight: packed by :func:`honed.ops.quantize_weight`, which holds the bias too. A plain torch weight
            goes to torch's own op (packing it would cost more than one product); a plain NumPy weight is
            packed for this call.
        bias: ``(N,)``, only with a plain weight.
        activation: ``none``, ``relu``, ``gelu``, ``gelu_tanh`` or ``silu``; needs a packed weight.
        residual: like the output; needs a packed weight.

    Returns:
        ``(..., N)`` of the input's type. Float sums are float32. With int8 and int4 weights each row is
        rounded to int8 (unless ``quantize_weight`` was told ``rows="float"``), one scale a group of inputs,
        and the integer sums are exact.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear.html

    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0]], dtype=np.float32)
    >>> linear(x, quantize_weight(np.array([[3.0, 4.0], [5.0, -6.0]], dtype=np.float32)), activation="relu")
    array([[11.,  0.]], dtype=float32)
    """
    if isinstance(weight, _core.PackedWeight):
        if bias is not None:
            raise ValueError(
                "linear: got a bias beside a packed weight, expected it in quantize_weight(..., bias=)"
            )
        if not runs_natively(input, residual):
            raise TypeError(
                "linear: a packed weight takes plain float32, float16 or bfloat16 CPU tensors without "
                f"gradients, got a {type(input).__name__} of {input.dtype}"
            )
        return _core.linear(input, weight, activation, residual)
    if torch is None or not isinstance(weight, torch.Tensor):
        return _core.linear(input, quantize_weight(weight, bias=bias), activation, residual)
    if activation != "none" or residual is not None:
        raise ValueError("linear: activation and residual need a packed weight, got a plain one")
    return fall_back("linear", torch.nn.functional.linear, input, weight, bias)

"""Matrix product with a weight."""

from honed._lib import _core, torch
from honed.ops._dispatch import fall_back, is_compiling, multiplies

if torch is not None:
    from honed.ops import _product

_PackedWeight = _core.PackedWeight
_run = _core.linear
_at_once = _core.linear_at_once


def linear(
    input, weight, bias=None, *, activation="none", residual=None, scale=1.0, lora=None, accumulate=None
):
    """``y = activation(scale * input @ weight.T + s * (input @ A.T) @ B.T + bias) + residual``.

    Args:
        input: ``(..., K)``, float64, float32, float16 or bfloat16; a torch tensor or NumPy array.
        weight: ``(N, K)`` of the input's type and any strides, or packed by
            :func:`honed.ops.quantize_weight`, which then holds the bias too and takes no float64.
        bias: ``(N,)``, only with a plain weight.
        activation: ``none``, ``relu``, ``relu6``, ``gelu``, ``gelu_tanh`` or ``silu``.
        residual: like the output.
        scale: a number.
        lora: ``(A, B, s)`` with ``A`` of shape ``(R, K)`` and ``B`` ``(N, R)``: an update of low rank, added
            while the product is still in registers.
        accumulate: ``None`` or ``"fp16"``: float16 inputs and a weight packed as ``f16`` are multiplied in
            float16, twice as many at once, on CPUs with AVX512-FP16 where that is measured to be faster
            (``honed.info().fp16_sums``; elsewhere, and under gradients, float32 sums as always). Sums over
            32 products are float16, sums of these float32: the error stays below 1.6 % of
            ``abs(input) @ abs(weight).T`` (32 * 2**-11 / (1 - 32 * 2**-11); typically far less), plus 2**-20
            for every 32 inputs, and 32 products that add up to more than 65504 are infinite. Tested by
            emulation only: it has never run on such a CPU.

    Returns:
        ``(..., N)`` of the input's type. Sums are float32, float64 for float64. With int8 and int4 weights
        each row is rounded to int8 (unless ``quantize_weight`` was told ``rows="float"``), one scale a group
        of inputs, and the integer sums are exact.

    Gradients reach input, weight, bias, A, B and residual, any number of times. A packed weight has none: the
    input's gradient is a product with ``weight.unpack()``, the rounded values. ``torch.autocast`` casts as it
    does torch's own ``linear``. Tensors of other types or devices go to torch's own op.

    Raises:
        ValueError: shapes that do not fit. TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear.html,
    https://arxiv.org/abs/2106.09685 (lora)

    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0]], dtype=np.float32)
    >>> linear(x, np.array([[3.0, 4.0], [5.0, -6.0]], dtype=np.float32), activation="relu")
    array([[11.,  0.]], dtype=float32)
    """
    if accumulate is not None and accumulate != "fp16":
        raise ValueError(f"linear: accumulate is {accumulate!r}, expected None or 'fp16'")
    if lora is None and not is_compiling():
        y = _at_once(input, weight, bias, residual, activation, scale)
        if y is None:
            if not isinstance(weight, _PackedWeight) and weight.dim() == 2:
                return _in_steps(input, weight, bias, activation, residual, scale, None)
        elif y is not NotImplemented:
            return y
    if torch is None or not isinstance(input, torch.Tensor):
        return _of_arrays(input, weight, bias, activation, residual, scale, lora, accumulate)
    if isinstance(weight, _PackedWeight):
        return _packed(input, weight, bias, activation, residual, scale, lora, accumulate)
    a, b, s = lora or (None, None, 1.0)
    dtype = _product.autocast_dtype()
    if dtype is not None:
        input, weight, bias, a, b = (_product.cast(t, dtype) for t in (input, weight, bias, a, b))
        with torch.autocast("cpu", enabled=False):
            inside = residual if residual is None or residual.dtype == input.dtype else None
            y = linear(
                input,
                weight,
                bias,
                activation=activation,
                residual=inside,
                scale=scale,
                lora=lora and (a, b, s),
            )
            return y if inside is residual else y + residual
    # torch takes a vector as the weight of one output, which it leaves out of the shape.
    how = _product.answer(input, weight, bias, residual, a, b) if weight.dim() == 2 else 0
    if how == 0:
        return fall_back("linear", _torchs, input, weight, bias, activation, residual, scale, lora)
    if how == 1 and (activation in ("none", "relu", "relu6") or input.dtype != torch.float64):
        return _product.run_linear(input, weight, bias, activation, residual, scale, lora)
    return _in_steps(input, weight, bias, activation, residual, scale, lora)


def _of_arrays(input, weight, bias, activation, residual, scale, lora, accumulate):
    plus = None
    if lora is not None:
        a, b, s = lora
        plus = (_run(input, a, None, "none", None, s), b.T)
    if isinstance(weight, _PackedWeight):
        _refuse_bias(bias)
        return _run(input, weight, activation, residual, scale, plus, accumulate == "fp16")
    return _run(input, weight, bias, activation, residual, scale, plus)


def _refuse_bias(bias):
    if bias is not None:
        raise ValueError(
            "linear: got a bias beside a packed weight, expected it in quantize_weight(..., bias=)"
        )


def _packed(input, weight, bias, activation, residual, scale, lora, accumulate):
    _refuse_bias(bias)
    if _product.tracing():
        run = torch.compiler.disable(_packed)
        return run(input, weight, bias, activation, residual, scale, lora, accumulate)
    a, b, _ = lora or (None, None, 1.0)
    how = multiplies(input, residual, a, b)
    if how == 0 or input.dtype == torch.float64 or (how == 2 and weight.gated):
        raise TypeError(
            "linear: a packed weight takes plain CPU tensors of one type, float32, float16 or bfloat16, "
            f"without autocast{', without gradients' * weight.gated}, "
            f"got a {type(input).__name__} of {input.dtype}"
        )
    if how == 1:
        half_sums = accumulate == "fp16"
        return _product.run_linear(input, weight, None, activation, residual, scale, lora, half_sums)
    return _in_steps(input, weight, None, activation, residual, scale, lora)


def _in_steps(input, weight, bias, activation, residual, scale, lora):
    """The product, then the activation and what is added after it by torch's differentiable ops."""
    inside = residual if activation == "none" else None
    y = _product.linear(input, weight, bias, inside, scale, lora)
    y = _product.activate(y, activation)
    return y if inside is residual else y + residual


def _torchs(input, weight, bias, activation, residual, scale, lora):
    """torch's own ops."""
    plain = torch.nn.functional.linear
    if scale == 1 and lora is None:
        y = plain(input, weight, bias)
    else:
        y = plain(input, weight) * scale
        if lora is not None:
            a, b, s = lora
            y = y + plain(plain(input, a), b) * s
        y = y if bias is None else y + bias
    y = _product.activate(y, activation)
    return y if residual is None else y + residual

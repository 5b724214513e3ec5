"""What softmax and log_softmax do when a plain call is not enough."""

import numpy as np

from honed._lib import torch
from honed.ops._dispatch import answer, fall_back

_NARROW = {"float16": 1, "bfloat16": 2}  # how the backward names the type of an input beside float32


def general(name, run, function, input, dim, _stacklevel, dtype):
    """Other types, gradients, tracing, arrays; refusals.

    Args:
        run: the kernel: of input, dim and whether the result is float32.
        function: the autograd function of the same arguments and the type of the gradient.
    """
    if torch is None or not isinstance(input, torch.Tensor):
        return _of_array(name, run, input, dim, dtype)
    own = getattr(torch.nn.functional, name)
    how = answer(input) if dim is not None and -input.dim() <= dim < input.dim() else 0
    if not how or dtype not in (None, torch.float64, torch.float32, torch.float16, torch.bfloat16):
        return fall_back(name, own, input, dim, _stacklevel, dtype)
    to_f32 = dtype == torch.float32 and input.dtype in (torch.float16, torch.bfloat16)
    if dtype is not None and not to_f32:
        input = input.to(dtype)
    if how == 1:
        return run(input, dim, to_f32)
    narrow = _NARROW[str(input.dtype).removeprefix("torch.")] if to_f32 else 0
    return function.apply(input, dim, to_f32, narrow)


def _of_array(name, run, x, dim, dtype):
    if dim is None or not -len(x.shape) <= dim < len(x.shape):
        raise ValueError(f"{name}: dim is {dim}, expected a dimension of an array of shape {list(x.shape)}")
    wanted = dtype if dtype is None or isinstance(dtype, str) else np.dtype(dtype).name
    if wanted not in (None, str(x.dtype), "float32") or (wanted == "float32" and str(x.dtype) == "float64"):
        raise ValueError(f"{name}: dtype is {wanted}, expected None, {x.dtype} or float32")
    return run(x, dim, wanted == "float32")

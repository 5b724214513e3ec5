"""torch.nn.Linear on honed's kernels."""

from __future__ import annotations

import torch

from honed._lib import _core
from honed.nn._packed import Packed, pack, renew
from honed.ops import _product, linear
from honed.ops._dispatch import is_compiling, multiplies

_run = _core.linear
_fingerprint = _core.fingerprint


class Linear(torch.nn.Linear):
    """``y = x W^T + b``: constructor, parameters and ``state_dict`` of ``torch.nn.Linear``.

    Without gradients the weight is packed once, for all layers that share it, and packed anew when it or the
    bias changed: optimizer steps, ``load_state_dict``, new parameters and edits in place are seen at once,
    edits through ``.data`` by a sample of 64 values a tensor. With gradients, while ``torch.compile``
    traces, and where the weight is no plain parameter (parametrizations), the weight itself is used; see
    :func:`honed.ops.linear`.

    ``storage`` says how the packed copy holds the weight: ``None`` (every value exactly), ``"bf16"``,
    ``"fp16"``, ``"int8"`` or ``"int4"``. The parameters stay what they are, and training uses them.
    ``accumulate`` is that of :func:`honed.ops.linear`, without gradients.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html

    >>> layer = Linear(3, 2)
    >>> with torch.no_grad():
    ...     layer(torch.ones(4, 3)).shape
    torch.Size([4, 2])
    """

    op = "linear"
    storage: str | None = None
    accumulate: str | None = None
    _packed: Packed | None = None

    def forward(self, input):
        parameters = self._parameters
        if not is_compiling() and "weight" in parameters and "bias" in parameters:
            weight, bias = parameters["weight"], parameters["bias"]
            how = multiplies(weight, bias, input)
            if how == 2:
                return _product.linear(input, weight, bias, None, 1.0, None)
            if how == 1:
                packed = self._packed
                if (
                    packed is None
                    or packed.mark != _fingerprint(weight, bias)
                    or packed.storage != self.storage
                ):
                    packed = self._packed = pack(weight, bias, self.storage)
                if packed.product is not None:
                    if self.accumulate is not None:
                        return linear(input, packed.product, accumulate=self.accumulate)
                    return _run(input, packed.product)
        if isinstance(input, torch.Tensor):
            return linear(input, self.weight, self.bias)
        return super().forward(input)  # what torch.fx traces with

    def packed_for(self, input) -> Packed | None:
        """The packed weight as it is now, where products with ``input`` use it and sum in float32."""
        weight, bias = self._parameters.get("weight"), self._parameters.get("bias")
        if weight is None or self.accumulate is not None or multiplies(weight, bias, input) != 1:
            return None
        self._packed = renew(self._packed, weight, bias, self.storage)
        return self._packed

    def fused(self, input, activation="none", residual=None):
        """``activation(forward(input)) + residual``, in the product's own pass where the kernel can.

        It passes hooks by: layers call it where there are none.
        """
        parameters = self._parameters
        if not is_compiling() and "weight" in parameters and "bias" in parameters:
            weight, bias = parameters["weight"], parameters["bias"]
            if multiplies(weight, bias, input, residual) == 1:
                packed = self._packed = renew(self._packed, weight, bias, self.storage)
                if packed.product is not None:
                    return linear(
                        input,
                        packed.product,
                        activation=activation,
                        residual=residual,
                        accumulate=self.accumulate,
                    )
        return linear(input, self.weight, self.bias, activation=activation, residual=residual)

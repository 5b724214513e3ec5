"""quantize_weight: the float kinds hold the weights as their type does. (Integer kinds: tests/ops.)"""

import torch

from honed import ops
from honed.testing.spec import Case, OpSpec

_KINDS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def _inputs(params, generator):
    return {"weight": torch.randn(params["shape"], generator=generator, dtype=torch.float64)}


SPEC = OpSpec(
    name="quantize_weight",
    cases=(
        *(
            Case(f"{n}x{k}_{kind}", {"shape": (n, k), "kind": kind})
            for n, k in ((1, 1), (5, 7), (33, 64), (64, 130))
            for kind in _KINDS
        ),
        Case("768x768_f16", {"shape": (768, 768), "kind": "f16"}, bench=True),
    ),
    inputs=_inputs,
    honed=lambda x, params: ops.quantize_weight(x["weight"], params["kind"]).unpack(),
    torch=lambda x, params: x["weight"].float().to(_KINDS[params["kind"]]).float(),
    exact=True,
)

"""geglu on the cases of swiglu, and by tanh."""

import dataclasses

from honed import ops
from honed.testing.spec import Case
from honed.testing.specs.gelu import twin
from honed.testing.specs.swiglu import SPEC as SWIGLU
from honed.testing.specs.swiglu import both


def _torch(x, params):
    gate, up = both(x)
    return twin(gate, params.get("approximate", "none")) * up


SPEC = dataclasses.replace(
    SWIGLU,
    name="geglu",
    cases=(
        Case("tanh", {"shape": (3, 5), "approximate": "tanh"}),
        Case("tanh_large", {"shape": (9, 50), "approximate": "tanh", "scale": 100}),
        *SWIGLU.cases,
    ),
    honed=lambda x, params: ops.geglu(x["gate"], x["up"], approximate=params.get("approximate", "none")),
    torch=_torch,
)

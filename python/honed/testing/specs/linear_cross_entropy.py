"""linear_cross_entropy over odd sizes, chunks that do not divide the rows, every option."""

import torch
import torch.nn.functional as F

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec
from honed.testing.specs import cross_entropy


def _inputs(params, generator):
    rows, inputs, classes = params["shape"]
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    target = torch.randint(0, classes, params.get("rows", (rows,)), generator=generator)
    ignored = params.get("ignored", 0)
    if ignored:
        target.view(-1)[-ignored:] = -100
    return {
        "input": draw(*target.shape, inputs),
        "linear_weight": draw(classes, inputs) / inputs**0.5,
        "target": target,
        "linear_bias": draw(classes) if params.get("bias") else None,
        "weight": draw(classes).exp() if params.get("weight") else None,
    }


def _honed(x, params):
    return ops.linear_cross_entropy(
        x["input"],
        x["linear_weight"],
        x["target"],
        linear_bias=x["linear_bias"],
        weight=x["weight"],
        reduction=params.get("reduction", "mean"),
        label_smoothing=params.get("smoothing", 0.0),
        z_loss=params.get("z_loss", 0.0),
        softcap=params.get("softcap", 0.0),
        chunk=params.get("chunk", 0),
    )


def _torch(x, params):
    logits = F.linear(x["input"], x["linear_weight"], x["linear_bias"])
    rows = {**x, "input": logits.movedim(-1, 1) if logits.dim() > 2 else logits}
    return cross_entropy.reference(rows, params)


_ALL = {"bias": True, "weight": True, "smoothing": 0.1, "z_loss": 1e-2, "softcap": 5.0, "ignored": 2}

SPEC = OpSpec(
    name="linear_cross_entropy",
    cases=(
        *(Case(r, {"shape": (5, 4, 7), "reduction": r, "chunk": 2}) for r in ("none", "mean", "sum")),
        *(
            Case(f"all_{r}", {"shape": (7, 5, 9), "reduction": r, "chunk": 3, **_ALL})
            for r in ("none", "mean", "sum")
        ),
        Case("one_chunk", {"shape": (33, 17, 65), **_ALL}),
        Case("chunk_of_one", {"shape": (3, 17, 65), "chunk": 1, "bias": True}),
        Case("dims", {"shape": (6, 9, 40), "rows": (2, 3), "bias": True, "chunk": 4}),
        Case("dims_none", {"shape": (6, 9, 40), "rows": (2, 3), "reduction": "none", "chunk": 4}),
        Case("one_row", {"shape": (1, 9, 40), "rows": ()}),
        Case("one_class", {"shape": (3, 9, 1), "bias": True}),
        Case("no_rows", {"shape": (0, 9, 5), "bias": True}),
        Case("all_ignored", {"shape": (3, 9, 5), "ignored": 3, "bias": True}),
        Case("64x256x8192", {"shape": (64, 256, 8192)}, bench=True),
    ),
    inputs=_inputs,
    honed=_honed,
    torch=_torch,
    dtypes=REAL,
    gradients=("input", "linear_weight", "linear_bias"),
    flops=lambda params: 2.0 * torch.Size(params["shape"]).numel(),
)

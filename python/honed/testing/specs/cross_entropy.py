"""cross_entropy over odd class counts, every option and reduction, ignored rows, extreme logits."""

import torch
import torch.nn.functional as F

from honed import ops
from honed.testing.spec import REAL, Case, OpSpec


def _inputs(params, generator):
    shape = params["shape"]
    classes = shape[1] if len(shape) > 1 else shape[0]
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * params.get("scale", 3)
    rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = torch.randint(0, classes, rows, generator=generator)
    if "dtype" in params:
        target = target.to(params["dtype"])
    ignored = params.get("ignored", 0)
    if ignored:
        target.view(-1)[:ignored] = params.get("ignore_index", -100)
    if "masked" in params:  # so many classes, the targets not among them, are impossible
        x[:, : params["masked"]] = -torch.inf
        target = target.clamp_min(params["masked"])
    weight = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.5
    return {"input": x, "target": target, "weight": weight if params.get("weight") else None}


def _options(params):
    return {
        "ignore_index": params.get("ignore_index", -100),
        "reduction": params.get("reduction", "mean"),
        "label_smoothing": params.get("smoothing", 0.0),
    }


def _honed(x, params):
    return ops.cross_entropy(
        x["input"],
        x["target"],
        x["weight"],
        **_options(params),
        z_loss=params.get("z_loss", 0.0),
        softcap=params.get("softcap", 0.0),
    )


def reference(x, params):
    logits, target, weight = x["input"], x["target"].long(), x["weight"]
    if params.get("softcap"):
        logits = params["softcap"] * torch.tanh(logits / params["softcap"])
    options = _options(params)
    loss = F.cross_entropy(logits, target, weight, **options)
    if not params.get("z_loss"):
        return loss
    lse = logits.logsumexp(1 if logits.dim() > 1 else 0)
    kept = target != options["ignore_index"]
    squares = torch.where(kept, params["z_loss"] * lse * lse, 0)
    if options["reduction"] == "none":
        return loss + squares
    weights = kept.to(lse.dtype) if weight is None else torch.where(kept, weight[target.clamp_min(0)], 0)
    return loss + squares.sum() / (weights.sum() if options["reduction"] == "mean" else 1)


_ALL = {"weight": True, "smoothing": 0.1, "z_loss": 1e-2, "softcap": 5.0}

SPEC = OpSpec(
    name="cross_entropy",
    cases=(
        *(Case(r, {"shape": (3, 7), "reduction": r}) for r in ("none", "mean", "sum")),
        *(
            Case(f"all_{r}", {"shape": (5, 9), "reduction": r, "ignored": 2, **_ALL})
            for r in ("none", "mean", "sum")
        ),
        *(Case(name, {"shape": (4, 37), name: value}) for name, value in _ALL.items()),
        Case("smooth_weighted", {"shape": (4, 37), "weight": True, "smoothing": 0.3, "reduction": "none"}),
        Case("smooth_only", {"shape": (4, 37), "smoothing": 1.0}),
        Case("one_row", {"shape": (21,), "smoothing": 0.1, "weight": True}),
        Case("one_class", {"shape": (4, 1)}),
        Case("no_rows_sum", {"shape": (0, 5), "reduction": "sum"}),
        Case("no_rows", {"shape": (0, 5)}),
        Case("all_ignored", {"shape": (3, 5), "ignored": 3}),
        Case("dims", {"shape": (2, 5, 3, 2), "ignored": 3, "ignore_index": 2}),
        Case("dims_none", {"shape": (2, 5, 3), "reduction": "none", **_ALL}),
        Case("int32", {"shape": (3, 7), "dtype": torch.int32, "ignored": 1}),
        Case("uint8", {"shape": (3, 300), "dtype": torch.uint8, "ignore_index": 255, "ignored": 1}),
        Case("large", {"shape": (6, 65), "scale": 1e4}),
        Case("large_none", {"shape": (6, 65), "scale": 1e4, "reduction": "none"}),
        Case("masked", {"shape": (6, 65), "masked": 20}),
        Case("pieces", {"shape": (3, 5001), "scale": 10}),
        Case("pieces_none", {"shape": (3, 5001), "scale": 10, "reduction": "none"}),
        Case("many_pieces", {"shape": (2, 150001)}),
        Case("masked_piece", {"shape": (3, 5001), "masked": 3000}),
        Case("64x50257", {"shape": (64, 50257)}, bench=True),
    ),
    inputs=_inputs,
    honed=_honed,
    torch=reference,
    dtypes=REAL,
    gradients=("input",),
    bytes=lambda params, size: size * torch.Size(params["shape"]).numel(),
)

"""Options that several commands take."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Weights(str, Enum):
    """How the engine stores the weights; ``none`` is exact."""

    none = "none"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"
    int4 = "int4"


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A folder, a .gguf file or a name on the Hub.")
]
WeightsOption = Annotated[Weights, typer.Option(help="How weights are stored; none: exactly.")]
NewTokens = Annotated[int, typer.Option(min=1, help="The most tokens to write.")]
Temperature = Annotated[float | None, typer.Option(min=1e-6, help="Above 1: more surprising.")]
TopK = Annotated[int | None, typer.Option(min=1, help="Draws from the k likeliest tokens.")]
TopP = Annotated[
    float | None, typer.Option(min=0, max=1, help="Draws from the likeliest tokens of this sum.")
]
MinP = Annotated[
    float | None, typer.Option(min=0, max=1, help="Drops tokens below this share of the likeliest.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="The same seed draws the same text.")]
PackedCache = Annotated[
    Path | None, typer.Option(help="A file for the packed weights: written once, mapped by later starts.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def sampling(greedy, temperature, top_k, top_p, min_p, seed) -> dict:
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    given = {name: value for name, value in given.items() if value is not None}
    if greedy and (given or seed is not None):
        raise typer.BadParameter("takes no sampling option beside it", param_hint="--greedy")
    return {"do_sample": True, **given} if given or seed is not None else {"do_sample": False}

"""``honed compare-strategies``: one prompt under every decoding strategy."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from honed.cli import _models
from honed.cli._options import AsJson, ModelOption, PackedCache, Weights, WeightsOption


def compare_strategies(
    model: ModelOption,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The text to go on from.")],
    strategy: Annotated[
        list[str] | None, typer.Option(help="Only this one, such as top-p or 'beam search'; may be repeated.")
    ] = None,
    weights: WeightsOption = Weights.none,
    packed_cache: PackedCache = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most tokens to write.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="The same seed for every strategy.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Writes on from a prompt under each decoding strategy: text, likelihood, repetition, variety, speed.

    log p: the model's own mean log-probability of the text, nat a token. rep-4: share of 4-grams written
    before. distinct: different words (tokens) and pairs by all of them.
    """
    from honed.generation.compare import STRATEGIES, compare

    unknown = sorted(set(strategy or ()) - set(STRATEGIES))
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: expected one of {', '.join(STRATEGIES)}", param_hint="--strategy"
        )
    honed_model, tokenizer = _models.load(model, weights, packed_cache)
    outcomes = compare(honed_model, tokenizer, prompt, strategy, seed=seed, max_new_tokens=max_new_tokens)
    if as_json:
        rows = [asdict(made) | {"tokens_per_second": made.tokens_per_second} for made in outcomes]
        print(json.dumps(rows))
        return
    console = Console(highlight=False)
    for made in outcomes:
        numbers = (
            f"log p {made.log_probability:.2f}, rep-4 {made.repetition:.2f}, distinct {made.distinct_1:.2f} "
            f"{made.distinct_2:.2f}, {made.tokens_per_second:.0f} tokens/s"
        )
        console.print(Text(f"{made.strategy}  ", style="bold").append(numbers, style="not bold dim"))
        text = textwrap.fill(made.text.strip(), max(20, console.width - 4))
        console.print(Text(textwrap.indent(text, "    ") + "\n"))

"""``honed generate``: writes on from a prompt."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer

import honed
from honed.cli import _models
from honed.cli._options import (
    AsJson,
    MinP,
    ModelOption,
    NewTokens,
    PackedCache,
    Seed,
    Temperature,
    TopK,
    TopP,
    Weights,
    WeightsOption,
    sampling,
)


def generate(
    model: ModelOption,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="The text to go on from; - reads standard input.")
    ],
    weights: WeightsOption = Weights.none,
    packed_cache: PackedCache = None,
    max_new_tokens: NewTokens = 128,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Always the likeliest token (the default).")
    ] = False,
    seed: Seed = None,
    num_beams: Annotated[int, typer.Option(min=1, help="Beam search; the text comes at the end.")] = 1,
    repetition_penalty: Annotated[float | None, typer.Option(min=1e-6)] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Any other option of generate, NAME=JSON: typical_p=0.9; may be repeated."),
    ] = None,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="The prompt is a user's message.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Writes on from a prompt, token by token."""
    options = sampling(greedy, temperature, top_k, top_p, min_p, seed)
    if num_beams > 1:
        options["num_beams"] = num_beams
    if repetition_penalty is not None:
        options["repetition_penalty"] = repetition_penalty
    options |= _others(option or ())
    text = sys.stdin.read() if prompt == "-" else prompt
    honed_model, tokenizer = _models.load(model, weights, packed_cache)
    inputs = (
        _models.encode(tokenizer, [{"role": "user", "content": text}])
        if chat_template
        else tokenizer(text, return_tensors="pt")
    )
    streamer = None if as_json or options.get("num_beams", 1) > 1 else _models.streamer(tokenizer)
    begin = time.perf_counter()
    tokens, answer = _models.answer(
        honed_model, tokenizer, inputs, streamer, seed, **{"max_new_tokens": max_new_tokens, **options}
    )
    seconds = time.perf_counter() - begin
    if as_json:
        found = honed.report(honed_model)
        result = {"text": answer, "prompt_tokens": inputs["input_ids"].shape[1], "new_tokens": tokens}
        result |= {"seconds": round(seconds, 4), "tokens_per_second": round(tokens / seconds, 2)}
        print(json.dumps(result | {"fallbacks": dict(found.fallbacks)}))
    elif streamer is None:
        print(answer)


# What the command itself says, or has no way to show.
_NOT_HERE = {"streamer", "tokenizer", "return_dict_in_generate", "num_return_sequences"}


def _others(given) -> dict:
    found = {}
    for entry in given:
        name, separator, value = entry.partition("=")
        try:
            found[name.strip().replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            separator = ""
        if not separator:
            raise typer.BadParameter(f"{entry!r}: expected NAME=JSON", param_hint="--option")
    if refused := sorted(_NOT_HERE & set(found)):
        raise typer.BadParameter(
            f"{', '.join(refused)}: not an option of this command", param_hint="--option"
        )
    return found

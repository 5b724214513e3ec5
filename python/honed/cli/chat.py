"""``honed chat``: a conversation."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from honed.cli import _models
from honed.cli._options import (
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


def chat(
    model: ModelOption,
    weights: WeightsOption = Weights.none,
    packed_cache: PackedCache = None,
    max_new_tokens: NewTokens = 512,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    seed: Seed = None,
    system: Annotated[
        str | None, typer.Option(help="What the model is told before the conversation.")
    ] = None,
) -> None:
    """Talks with a model. An empty line, /exit or the end of input ends it."""
    options = sampling(False, temperature, top_k, top_p, min_p, seed)
    honed_model, tokenizer = _models.load(model, weights, packed_cache)
    if not tokenizer.chat_template:
        raise ValueError(f"chat: {model} has no chat template; use honed generate")
    messages = [{"role": "system", "content": system}] if system else []
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line in ("", "/exit"):
            return
        messages.append({"role": "user", "content": line})
        inputs = _models.encode(tokenizer, messages)
        try:
            _, answer = _models.answer(
                honed_model,
                tokenizer,
                inputs,
                _models.streamer(tokenizer),
                seed,
                max_new_tokens=max_new_tokens,
                **options,
            )
        except KeyboardInterrupt:
            print()
            messages.pop()
            continue
        messages.append({"role": "assistant", "content": answer})

"""The ``honed`` command. Exit codes: 0 done, 1 it failed (one line says why), 2 wrong usage."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import honed

app = typer.Typer(
    help="Hand-written kernels for PyTorch and Hugging Face models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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


def main() -> None:
    """Entry point of the ``honed`` command."""
    try:
        app()
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        lines = str(error).strip().splitlines()
        print(f"honed: {lines[0] if lines else type(error).__name__}", file=sys.stderr)
        sys.exit(1)


@app.command()
def info(as_json: AsJson = False) -> None:
    """Version, CPU levels, threads, torch and CUDA as found here."""
    found = asdict(honed.info())
    if as_json:
        print(json.dumps(found))
        return
    table = Table(show_header=False, box=None)
    for name, value in found.items():
        table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    Console().print(table)


@app.command()
def demo(
    model: Annotated[Path | None, typer.Option(help="A .gguf file instead of the packaged model.")] = None,
) -> None:
    """Asks a small language model two questions, then times plain torch beside honed."""
    from honed import demo as script

    script.run(model)


@app.command()
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
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="The prompt is a user's message.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Writes on from a prompt, token by token."""
    options = _sampling(greedy, temperature, top_k, top_p, min_p, seed)
    if num_beams > 1:
        options["num_beams"] = num_beams
    if repetition_penalty is not None:
        options["repetition_penalty"] = repetition_penalty
    text = sys.stdin.read() if prompt == "-" else prompt
    honed_model, tokenizer = _load(model, weights, packed_cache)
    inputs = (
        _encode(tokenizer, [{"role": "user", "content": text}])
        if chat_template
        else tokenizer(text, return_tensors="pt")
    )
    streamer = None if as_json or num_beams > 1 else _streamer(tokenizer)
    begin = time.perf_counter()
    tokens, answer = _answer(
        honed_model, tokenizer, inputs, streamer, seed, max_new_tokens=max_new_tokens, **options
    )
    seconds = time.perf_counter() - begin
    if as_json:
        found = honed.report(honed_model)
        result = {"text": answer, "prompt_tokens": inputs["input_ids"].shape[1], "new_tokens": tokens}
        result |= {"seconds": round(seconds, 4), "tokens_per_second": round(tokens / seconds, 2)}
        print(json.dumps(result | {"fallbacks": dict(found.fallbacks)}))
    elif streamer is None:
        print(answer)


@app.command()
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
    options = _sampling(False, temperature, top_k, top_p, min_p, seed)
    honed_model, tokenizer = _load(model, weights, packed_cache)
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
        inputs = _encode(tokenizer, messages)
        try:
            _, answer = _answer(
                honed_model,
                tokenizer,
                inputs,
                _streamer(tokenizer),
                seed,
                max_new_tokens=max_new_tokens,
                **options,
            )
        except KeyboardInterrupt:
            print()
            messages.pop()
            continue
        messages.append({"role": "assistant", "content": answer})


@app.command()
def bench(
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds a case.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Times honed's ops beside torch's; a ratio above 1 means that honed is faster."""
    import torch

    from honed.testing import load_specs

    specs = load_specs()
    unknown = sorted(set(op or ()) - set(specs))
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: expected one of {', '.join(specs)}", param_hint="--op"
        )
    kind = getattr(torch, dtype, None)
    if kind not in (torch.float32, torch.float16, torch.bfloat16):
        raise typer.BadParameter(f"{dtype}: expected float32, float16 or bfloat16", param_hint="--dtype")
    rows = []
    for name in op or specs:
        for case in specs[name].cases:
            if case.bench and kind in specs[name].dtypes:
                rows.append(
                    {"op": name, "case": case.name, "dtype": dtype, **_time(specs[name], case, kind, rounds)}
                )
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(
        "op", "case", "honed us", "torch us", "torch / honed", title=f"{honed.info().level}, {dtype}"
    )
    for row in rows:
        table.add_row(
            row["op"], row["case"], *(f"{row[key]:.2f}" for key in ("honed_us", "torch_us", "ratio"))
        )
    Console().print(table)


def _time(spec, case, kind, rounds) -> dict:
    """Medians of both and of their ratio; the two take turns, so that a busy machine slows both."""
    values, _ = spec.make(case, kind)
    calls = {
        "honed": lambda: spec.honed(values, case.params),
        "torch": lambda: spec.torch(values, case.params),
    }
    repeats = {}
    for name, call in calls.items():
        call()
        begin = time.perf_counter()
        call()
        repeats[name] = max(1, int(0.01 / (time.perf_counter() - begin + 1e-9)))
    taken = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            taken[name].append((time.perf_counter() - begin) / repeats[name] * 1e6)
    middle = lambda numbers: sorted(numbers)[len(numbers) // 2]  # noqa: E731
    ratios = [theirs / ours for ours, theirs in zip(taken["honed"], taken["torch"], strict=True)]
    return {"honed_us": middle(taken["honed"]), "torch_us": middle(taken["torch"]), "ratio": middle(ratios)}


def _sampling(greedy, temperature, top_k, top_p, min_p, seed) -> dict:
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    given = {name: value for name, value in given.items() if value is not None}
    if greedy and (given or seed is not None):
        raise typer.BadParameter("takes no sampling option beside it", param_hint="--greedy")
    return {"do_sample": True, **given} if given or seed is not None else {"do_sample": False}


def _load(path: str, weights: Weights, packed_cache: Path | None):
    from transformers.utils import logging

    from honed.hf import load

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, tokenizer = load(path)
    mode = None if weights is Weights.none else weights.value
    return honed.hone(model, weights=mode, packed_cache=packed_cache), tokenizer


def _encode(tokenizer, messages):
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )


def _streamer(tokenizer):
    from transformers import TextStreamer

    return TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


def _answer(model, tokenizer, inputs, streamer, seed, **options) -> tuple[int, str]:
    """The number of new tokens and their text."""
    import torch

    if seed is not None:
        torch.manual_seed(seed)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    out = model.generate(**inputs, streamer=streamer, **options)
    new = out[0, inputs["input_ids"].shape[1] :]
    return len(new), tokenizer.decode(new, skip_special_tokens=True)


if __name__ == "__main__":
    main()

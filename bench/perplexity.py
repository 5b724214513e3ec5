"""Perplexity of a causal language model in plain torch and in every weight mode of honed.

Every mode reads the same windows of the same text, so the ratios are comparable. The last column is the mean
Kullback-Leibler divergence of the mode's next-token distribution from plain torch's: it sees what a ratio of
perplexities can hide, because gains and losses of single tokens do not cancel in it.

    python bench/perplexity.py --model path/to/model --text book.txt --windows 8 --length 512
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import honed

MODES = ("none", "bf16", "fp16", "int8", "int4")
_CHARACTERS_A_TOKEN = 12  # more than any ordinary text has: a window is cut from this many characters a token


@dataclass(frozen=True)
class Row:
    """What one mode measured: mean negative log-likelihood and divergence (nats a token), seconds."""

    mode: str
    loss: float
    divergence: float
    seconds: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


def windows(tokenizer, text: str, count: int, length: int) -> list[torch.Tensor]:
    """``count`` windows of ``length`` tokens, (1, length) each, evenly spread over the text."""
    found = []
    for index in range(count):
        start = text.find(" ", len(text) * (2 * index + 1) // (2 * count))
        piece = text[start : start + length * _CHARACTERS_A_TOKEN]
        ids = tokenizer(piece, return_tensors="pt", add_special_tokens=False).input_ids[:, :length]
        if start < 0 or ids.shape[1] < length:
            raise ValueError(
                f"window {index} of {count} has {ids.shape[1]} tokens, expected {length}: text too short"
            )
        found.append(ids)
    return found


@torch.inference_mode()
def measure(mode: str, model, ids: list[torch.Tensor], reference: list[torch.Tensor]) -> Row:
    """Loss over all windows. An empty ``reference`` is filled, a full one is compared with."""
    start = time.perf_counter()
    losses, divergences, fill = [], [], not reference
    for index, window in enumerate(ids):
        scores = model(window).logits[0, :-1].float().log_softmax(-1)
        losses.append(-scores.gather(1, window[0, 1:, None]).mean().item())
        if fill:
            reference.append(scores.half())
        else:
            wanted = reference[index].float()
            divergences.append((wanted.exp() * (wanted - scores)).sum(-1).mean().item())
    mean = sum(losses) / len(losses)
    divergence = sum(divergences) / len(divergences) if divergences else 0.0
    return Row(mode, mean, divergence, time.perf_counter() - start)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a Hugging Face causal model")
    parser.add_argument(
        "--text", type=Path, required=True, action="append", help="UTF-8 text; may be repeated"
    )
    parser.add_argument("--windows", type=int, default=8, help="windows a text")
    parser.add_argument("--length", type=int, default=512, help="tokens a window")
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=list(MODES), help="weight modes of honed"
    )
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, help="threads of torch and of honed")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
        honed.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    ids = []
    for path in options.text:
        ids += windows(tokenizer, path.read_text(encoding="utf-8"), options.windows, options.length)

    def load():
        return AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).eval()

    # A fresh model a mode: no mode may measure what the one before it left behind.
    reference: list[torch.Tensor] = []
    rows = [measure("torch", load(), ids, reference)]
    for mode in options.modes:
        model = honed.hone(load(), weights=None if mode == "none" else mode)
        rows.append(measure(mode, model, ids, reference))

    tokens = sum(window.shape[1] - 1 for window in ids)
    print(
        f"{options.model.name}, {options.dtype}, {len(ids)} windows of {options.length}: {tokens} predictions"
    )
    print(f"{'mode':<8}{'perplexity':>12}{'ratio':>10}{'KL, nats':>12}{'seconds':>10}")
    for row in rows:
        ratio = row.perplexity / rows[0].perplexity
        print(
            f"{row.mode:<8}{row.perplexity:>12.4f}{ratio:>10.4f}{row.divergence:>12.5f}{row.seconds:>10.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Is exact mode exact? The tokens and logits of a real model, plain and honed, over many prompts.

    python bench/exactness.py --model MODEL --text FILE                  # 50 prompts, 64 greedy tokens each
    python bench/exactness.py --model MODEL --text FILE --beams 4 --prompts 10

MODEL is a Hugging Face folder or a .gguf file, FILE any long text: prompts of 8 to 64 tokens are cut from it.
Exits with 1 when a token differs or a logit is off by more than 1e-4 of the largest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import honed
from honed.hf import load


def cut(ids: list[int], count: int) -> list[torch.Tensor]:
    """``count`` prompts of growing length from all over the text."""
    step = max(1, len(ids) // count)
    lengths = [8 + 56 * i // max(1, count - 1) for i in range(count)]
    return [torch.tensor([ids[i * step : i * step + length]]) for i, length in enumerate(lengths)]


def run(model, prompts, options) -> list[tuple[torch.Tensor, torch.Tensor]]:
    found = []
    for ids in prompts:
        with torch.inference_mode():
            tokens = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
            found.append((tokens, model(tokens).logits))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--beams", type=int, default=1)
    given = parser.parse_args()
    model, tokenizer = load(given.model, dtype=torch.float32)
    text = given.text.read_text(errors="replace")[: 1 << 20]
    prompts = cut(tokenizer(text)["input_ids"], given.prompts)
    options = {
        "max_new_tokens": given.tokens,
        "do_sample": False,
        "num_beams": given.beams,
        "pad_token_id": 0,
    }
    plain = run(model, prompts, options)
    ours = run(honed.hone(model), prompts, options)
    equal, worst = 0, 0.0
    for (tokens, logits), (our_tokens, our_logits) in zip(plain, ours, strict=True):
        equal += torch.equal(tokens, our_tokens)
        if tokens.shape == our_tokens.shape and torch.equal(tokens, our_tokens):
            worst = max(worst, ((logits - our_logits).abs().max() / logits.abs().max()).item())
    print(f"{equal} of {given.prompts} texts equal, {given.beams} beams; largest logit error {worst:.2g}")
    print(honed.report(model))
    return int(equal != given.prompts or worst > 1e-4)


if __name__ == "__main__":
    sys.exit(main())

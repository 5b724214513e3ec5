"""Generates text with a Hugging Face model, plain and honed, and says what each took.

python examples/generate.py FOLDER_OR_NAME "The keeper of the lighthouse" --weights int8
"""

import argparse
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import honed


def generate(model, tokenizer, prompt, count):
    """The text and the tokens a second, prompt included."""
    given = tokenizer(prompt, return_tensors="pt")
    start = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(
            **given, max_new_tokens=count, do_sample=False, pad_token_id=tokenizer.eos_token_id
        )
    made = out.shape[1] - given["input_ids"].shape[1]
    return tokenizer.decode(out[0], skip_special_tokens=True), made / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("prompt")
    parser.add_argument("--weights", choices=["bf16", "fp16", "int8", "int4"], help="default: exact")
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()
    print(honed.info())
    for name in ("plain", "honed"):
        if name == "honed":
            honed.hone(model, weights=given.weights)
        generate(model, tokenizer, given.prompt, 2)  # warm-up
        text, rate = generate(model, tokenizer, given.prompt, given.tokens)
        print(f"\n{name}: {rate:.1f} tokens/s\n{text}")


if __name__ == "__main__":
    main()

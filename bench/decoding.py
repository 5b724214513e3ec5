"""Milliseconds a token of decoding strategies: a honed model beside Hugging Face's eager one, in turn.

    python bench/decoding.py --strategies beam-4,beam-sample-4 --rounds 5

Both sides' tokens are compared before anything is timed; in exact mode they have to be the same. Times are of
a generated token, the prompt's share included; the ratio is a median of the ratios inside a round.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import statistics
import sys
import time

import harness
import torch
from e2e import prompt
from providers import folder

import honed

# Options of generate.
STRATEGIES = {
    "greedy": {"do_sample": False},
    "beam-4": {"num_beams": 4, "do_sample": False},
    "beam-4-processors": {"num_beams": 4, "do_sample": False, "repetition_penalty": 1.1},
    "beam-sample-4": {"num_beams": 4, "do_sample": True, "temperature": 0.8, "top_k": 50},
    "beam-8": {"num_beams": 8, "do_sample": False},
}
ASKED = {"beam-4": 2.5}  # least ratio to Hugging Face's eager f32


def run(model, ids, new_tokens: int, options: dict) -> tuple[list[int], float]:
    """The text, and seconds a new token."""
    torch.manual_seed(0)
    start = time.perf_counter()
    out = model.generate(
        ids,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        pad_token_id=0,
        **{"temperature": None, "top_k": None, "top_p": None, **options},
    )
    return out[0, ids.shape[1] :].tolist(), (time.perf_counter() - start) / new_tokens


def measure(sides: dict, ids, new_tokens: int, options: dict, rounds: int) -> dict[str, list[float]]:
    taken = {name: [] for name in sides}
    names = list(sides)
    gc.disable()
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(run(sides[name], ids, new_tokens, options)[1])
    gc.enable()
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2", choices=["smollm2", "gpt2"])
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help=f"of {', '.join(STRATEGIES)}")
    parser.add_argument("--weights", default="exact", choices=["exact", "bf16", "fp16", "int8", "int4"])
    parser.add_argument("--threads", type=int, default=honed.info().cpus)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    names = arguments.strategies.split(",")
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown:
        parser.error(f"no strategy {', '.join(unknown)}, expected some of {', '.join(STRATEGIES)}")

    import transformers

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    print(harness.machine_card(arguments.threads, ("torch", "transformers")))
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        folder(arguments.model), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    exact = arguments.weights == "exact"
    sides = {
        "hf": plain,
        "honed": honed.hone(copy.deepcopy(plain), weights=None if exact else arguments.weights),
    }
    ids = torch.tensor([prompt(arguments.model, arguments.prompt)])

    rows, failed = [], False
    print(f"{'strategy':20} {'hf ms':>8} {'honed ms':>8} {'ratio':>6} {'same':>6}")
    for name in names:
        options = STRATEGIES[name]
        texts = {side: run(model, ids, arguments.new_tokens, options)[0] for side, model in sides.items()}
        same = texts["hf"] == texts["honed"]
        if exact and not same:
            print(f"{name}: honed's text is not hf's", file=sys.stderr)
            failed = True
            continue
        taken = measure(sides, ids, arguments.new_tokens, options, arguments.rounds)
        ratio = statistics.median(a / b for a, b in zip(taken["hf"], taken["honed"], strict=True))
        milliseconds = {side: 1e3 * statistics.median(times) for side, times in taken.items()}
        print(
            f"{name:20} {milliseconds['hf']:8.2f} {milliseconds['honed']:8.2f} {ratio:6.2f} {same!s:>6}"
            + (f"  asked {ASKED[name]}" if name in ASKED and exact else "")
        )
        rows.append(
            {
                "model": arguments.model,
                "strategy": name,
                "weights": arguments.weights,
                "threads": arguments.threads,
                "prompt": arguments.prompt,
                "new_tokens": arguments.new_tokens,
                "hf_ms": round(milliseconds["hf"], 3),
                "honed_ms": round(milliseconds["honed"], 3),
                "ratio": round(ratio, 3),
                "same_text": same,
                "sha": harness.git_sha(),
                "date": harness.today(),
            }
        )
    if not arguments.no_csv:
        harness.append_rows(harness.RESULTS / f"{harness.machine_name()}-decoding.csv", rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Tokens a second of whole models: decode at batch 1 and prefill of 512, every provider in every round.

    python bench/e2e.py --model smollm2 --providers hf,honed,honed-int8,llama.cpp-q8_0 --rounds 7

Greedy text is checked before anything is timed. Ratios are medians of the ratios inside a round, so that a
slow minute of the machine hits both sides. ``share`` is the part of the decode time that reading the weights
once, at the measured bandwidth, would take.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys

import harness
import torch
from providers import PROVIDERS, Unavailable, folder

import honed

DEFAULT = "hf,honed,honed-int8,honed-int4,llama.cpp-f16,llama.cpp-q8_0,llama.cpp-q4_0"
TEXT = (
    "The keeper of the lighthouse wrote down the weather every morning, the ships he had seen, and the oil "
    "he had burned. In winter the page was short, for there was little to see but snow. "
)
CHECKED = 32  # greedy tokens compared with hf's


def prompt(model: str, count: int) -> list[int]:
    """``count`` token ids: of a text where the model has a tokenizer, else spread over the vocabulary."""
    if (folder(model) / "tokenizer.json").exists():
        from transformers import AutoTokenizer

        ids = AutoTokenizer.from_pretrained(folder(model))(TEXT * (count // 16 + 1))["input_ids"]
    else:
        ids = [(7919 * i + 13) % 50000 for i in range(count)]
    return ids[:count]


def open_providers(names: list[str], model: str, threads: int) -> dict:
    made = {}
    for name in names:
        try:
            made[name] = PROVIDERS[name](model, threads)
        except Unavailable as error:
            print(f"e2e: {name} is left out: {error}", file=sys.stderr)
    return made


def agreement(tokens: list[int], reference: list[int]) -> int:
    """Greedy tokens before the first that differs."""
    same = [a == b for a, b in zip(tokens, reference, strict=True)]
    return same.index(False) if False in same else len(same)


def peer_of(name: str, made: dict) -> str | None:
    """llama.cpp at the same bits (at f16 for f32: it has no faster exact setting)."""
    bits = 16 if PROVIDERS[name].bits == 32 else PROVIDERS[name].bits
    for other in made:
        if other.startswith("llama.cpp") and not other.endswith("-fa") and PROVIDERS[other].bits == bits:
            return other
    return None


def measure(made: dict, short: list[int], long: list[int], new_tokens: int, rounds: int) -> dict:
    """Seconds a decoded token and seconds a prefill, a list with one value a round for each provider."""
    names = list(made)
    taken = {name: {"decode": [], "prefill": []} for name in names}
    for name in names:  # warm-up, compilation
        made[name].decode(short, 4)
        made[name].prefill(long)
    gc.disable()
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name]["decode"].append(made[name].decode(short, new_tokens))
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name]["prefill"].append(made[name].prefill(long))
        print(f"e2e: round {number + 1} of {rounds}", file=sys.stderr)
    gc.enable()
    return taken


def rows_of(made, taken, agreed, arguments, bandwidth) -> list[dict]:
    rows = []
    for name, provider in made.items():
        times = {kind: harness.Times.of(values) for kind, values in taken[name].items()}

        def against(other, kind, name=name):
            if other is None or other not in made or other == name:
                return ""
            pairs = zip(taken[other][kind], taken[name][kind], strict=True)
            return round(statistics.median(theirs / ours for theirs, ours in pairs), 3)

        peer = peer_of(name, made)
        rows.append(
            {
                "model": arguments.model,
                "provider": name,
                "threads": arguments.threads,
                "decode_tokens_s": round(1 / times["decode"].p50, 2),
                "decode_p20": round(1 / times["decode"].p80, 2),
                "decode_p80": round(1 / times["decode"].p20, 2),
                "prefill_tokens_s": round(arguments.prefill / times["prefill"].p50, 1),
                "decode_vs_hf": against("hf", "decode"),
                "prefill_vs_hf": against("hf", "prefill"),
                "peer": peer if peer != name else "",
                "decode_vs_peer": against(peer, "decode"),
                "prefill_vs_peer": against(peer, "prefill"),
                "weight_mb": round(provider.bytes_a_token / 1e6, 1),
                "share_of_bandwidth": round(provider.bytes_a_token / bandwidth / times["decode"].p50, 3),
                "same_tokens": f"{agreed.get(name, '')}/{CHECKED}" if name in agreed else "",
                "sha": harness.git_sha(),
                "date": harness.today(),
            }
        )
    return rows


def print_table(rows: list[dict]) -> None:
    print(
        f"{'provider':18} {'decode t/s':>10} {'x hf':>6} {'x l.cpp':>7} {'share':>6} {'prefill t/s':>11}",
        end="",
    )
    print(f" {'x hf':>6} {'x l.cpp':>7} {'MB':>6} {'same':>6}")
    for row in rows:
        print(
            f"{row['provider']:18} {row['decode_tokens_s']:>10} {row['decode_vs_hf']:>6} "
            f"{row['decode_vs_peer']:>7} "
            f"{row['share_of_bandwidth']:>6} {row['prefill_tokens_s']:>11} {row['prefill_vs_hf']:>6} "
            f"{row['prefill_vs_peer']:>7} {row['weight_mb']:>6} {row['same_tokens']:>6}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2", choices=["smollm2", "gpt2"])
    parser.add_argument("--providers", default=DEFAULT, help=f"of {', '.join(PROVIDERS)}")
    parser.add_argument("--threads", type=int, default=honed.info().cpus)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    names = arguments.providers.split(",")
    unknown = [name for name in names if name not in PROVIDERS]
    if unknown:
        parser.error(f"no provider {', '.join(unknown)}, expected some of {', '.join(PROVIDERS)}")

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(arguments.threads)
    print(
        harness.machine_card(arguments.threads, ("torch", "transformers", "llama_cpp_python", "ctranslate2"))
    )
    short, long = prompt(arguments.model, arguments.prompt), prompt(arguments.model, arguments.prefill)
    made = open_providers(names, arguments.model, arguments.threads)

    agreed = {}
    if "hf" in made:
        reference = made["hf"].greedy(short, CHECKED)
        agreed = {name: agreement(made[name].greedy(short, CHECKED), reference) for name in made}
        if agreed.get("honed", CHECKED) < CHECKED:
            print(f"e2e: honed's exact mode leaves hf's text after {agreed['honed']} tokens", file=sys.stderr)
            return 1

    before = harness.read_bandwidth(256, arguments.threads)
    taken = measure(made, short, long, arguments.new_tokens, arguments.rounds)
    bandwidth = max(before, harness.read_bandwidth(256, arguments.threads))
    rows = rows_of(made, taken, agreed, arguments, bandwidth)
    print_table(rows)
    if not arguments.no_csv:
        harness.append_rows(harness.RESULTS / f"{harness.machine_name()}-e2e.csv", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

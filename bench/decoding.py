"""Tokens a second of decoding strategies: honed's beside a reference of the same definition, in turn.

    python bench/decoding.py --cases contrastive,assisted,beam-4 --rounds 5

Where transformers has the strategy it is the reference, eager and in f32. The text of every pair is compared
before anything is timed. Ratios are medians of the ratios inside a round. ``smollm2`` holds values of 4 bits,
which exact mode keeps in 4 bits; ``smollm2-f32`` has each weight moved by about a thousandth, as after
training, so that its exact weights are f32.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import contrastive_reference
import harness
import torch
import transformers
from e2e import TEXT
from providers import folder

import honed


@dataclass
class Case:
    """One strategy: what is timed, beside what, and what else is worth a column."""

    strategy: str
    reference: str  # what the reference is, in words
    ours: Callable[[int], torch.Tensor]  # new tokens -> ids
    theirs: Callable[[int], torch.Tensor]
    note: Callable[[], str] = field(default=lambda: "")


def load(model: str):
    """The plain model, in f32, that writes as many tokens as it is asked; and a prompt."""
    name = model.removesuffix("-f32")
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        folder(name), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    plain.generation_config.eos_token_id = None
    if model.endswith("-f32"):
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter.mul_(1 + 1e-3 * torch.randn_like(parameter))
    if (folder(name) / "tokenizer.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder(name))
        return plain, tokenizer(TEXT[:120], return_tensors="pt")["input_ids"]
    return plain, torch.tensor([[(7919 * i + 13) % 50000 for i in range(26)]])


def generates(model, ids, **options) -> Callable[[int], torch.Tensor]:
    options = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "do_sample": False} | options

    def run(count):
        torch.manual_seed(0)
        return model.generate(ids, max_new_tokens=count, **options)

    return run


def contrastive(plain, fast, ids):
    options = {"penalty_alpha": 0.6, "top_k": 4}
    yield Case(
        "contrastive search, top_k 4",
        "plain PyTorch with a cache",
        generates(fast, ids, **options),
        lambda count: contrastive_reference.search(plain, ids, 0.6, 4, count),
    )


def assisted(plain, fast, ids):
    draft = honed.hone(copy.deepcopy(plain), weights="int4")
    for count in (3, 5):
        yield _assisted(fast, draft, ids, count)


def _assisted(fast, draft, ids, count):
    passes = []

    def ours(new):
        draft.generation_config.num_assistant_tokens = count
        draft.generation_config.assistant_confidence_threshold = 0.0
        before = honed.report(fast).calls, honed.report(draft).calls
        out = generates(fast, ids, assistant_model=draft)(new)
        checked = honed.report(fast).calls - before[0]
        passes.append((new - checked) / max(1, honed.report(draft).calls - before[1]))
        return out

    return Case(
        f"assisted, its own int4, {count} tokens",
        "honed greedy, the same model",
        ours,
        generates(fast, ids),
        lambda: f"{statistics.median(passes):.0%} of the drafted tokens kept",
    )


def lookup(plain, fast, ids):
    again = torch.cat((ids, generates(fast, ids)(48)[:, ids.shape[1] :], ids), 1)
    yield Case(
        "prompt lookup of a text that repeats",
        "honed greedy, the same model",
        generates(fast, again, prompt_lookup_num_tokens=5),
        generates(fast, again),
    )


# Options of generate that both sides take.
OPTIONS = {
    "greedy": {},
    "beam-4": {"num_beams": 4},
    "beam-4-processors": {"num_beams": 4, "repetition_penalty": 1.1},
    "beam-sample-4": {"num_beams": 4, "do_sample": True, "temperature": 0.8, "top_k": 50},
    "beam-8": {"num_beams": 8},
    "guidance": {"guidance_scale": 1.5},
}


def _options(name):
    def cases(plain, fast, ids):
        reference = "transformers, eager f32"
        both = (generates(model, ids, **OPTIONS[name]) for model in (fast, plain))
        yield Case(name, reference, *both)

    return cases


CASES = {
    "contrastive": contrastive,
    "assisted": assisted,
    "lookup": lookup,
    **{name: _options(name) for name in OPTIONS},
}
ASKED = {"beam-4": 2.5, "contrastive search, top_k 4": 3.0}  # least ratio


def measure(case: Case, new: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, a value a round; they take turns at going first."""
    taken = {"ours": [], "theirs": []}
    for number in range(rounds):
        for name in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            start = time.perf_counter()
            getattr(case, name)(new)
            taken[name].append(time.perf_counter() - start)
    return taken


def row_of(case: Case, arguments, model: str) -> dict | None:
    new = arguments.new_tokens
    same = torch.equal(case.ours(new), case.theirs(new))  # the warm-up, too
    if not same:
        print(f"decoding: {case.strategy} leaves the reference's text", file=sys.stderr)
    taken = measure(case, new, arguments.rounds)
    times = {name: harness.Times.of(values) for name, values in taken.items()}
    return {
        "model": model,
        "strategy": case.strategy,
        "threads": arguments.threads,
        "tokens_s": round(new / times["ours"].p50, 2),
        "p20": round(new / times["ours"].p80, 2),
        "p80": round(new / times["ours"].p20, 2),
        "reference": case.reference,
        "reference_tokens_s": round(new / times["theirs"].p50, 2),
        "ratio": round(harness.ratio(times["theirs"], times["ours"]), 3),
        "same_text": same,
        "note": case.note(),
        "sha": harness.git_sha(),
        "date": harness.today(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="smollm2,smollm2-f32", help="of smollm2, gpt2, each with -f32")
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--threads", type=int, default=honed.info().cpus)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    names = arguments.cases.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}, expected some of {', '.join(CASES)}")

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    print(harness.machine_card(arguments.threads, ("torch", "transformers")))
    rows = []
    for model in arguments.models.split(","):
        plain, ids = load(model)
        fast = honed.hone(copy.deepcopy(plain))
        for name in names:
            for case in CASES[name](plain, fast, ids):
                row = row_of(case, arguments, model)
                rows.append(row)
                print(
                    f"{model:12} {row['strategy']:38} {row['tokens_s']:>7} t/s  x {row['ratio']:<6} of "
                    f"{row['reference']} ({row['reference_tokens_s']} t/s) {row['note']}"
                    + (f" asked {ASKED[row['strategy']]}" if row["strategy"] in ASKED else ""),
                    flush=True,
                )
    if not arguments.no_csv:
        harness.append_rows(harness.RESULTS / f"{harness.machine_name()}-decoding.csv", rows)
    return 0 if all(row["same_text"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

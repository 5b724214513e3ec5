"""The ways to run a model that bench/e2e.py compares: greedy tokens, prefill time and decode time of each."""

from __future__ import annotations

import ctypes
import importlib
import json
import time
from pathlib import Path

import numpy as np
import torch

MODELS = {"smollm2": "smollm2", "gpt2": "gpt2-random"}
MODEL_CACHE = Path.home() / ".cache" / "honed-models"
FILE_CACHE = Path.home() / ".cache" / "honed-bench"


class Unavailable(Exception):
    """This provider is not installed or does not run this model."""


def peer(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"no module {module}: {error}") from error


def folder(model: str) -> Path:
    found = MODEL_CACHE / MODELS[model]
    if not (found / "config.json").exists():
        raise FileNotFoundError(f"e2e: no Hugging Face folder at {found}, expected one for the model {model}")
    return found


class HuggingFace:
    """transformers' own generate(), f32, eager."""

    bits = 32

    def __init__(self, model: str, threads: int):
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.model = AutoModelForCausalLM.from_pretrained(folder(model), dtype=torch.float32).eval()
        self.model.generation_config.eos_token_id = None  # every run writes as many tokens as it is asked
        self.bytes_a_token = sum(p.numel() * p.element_size() for p in self.model.parameters())

    @torch.inference_mode()
    def greedy(self, ids: list[int], count: int) -> list[int]:
        given = torch.tensor([ids])
        out = self.model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
        return out[0, len(ids) :].tolist()

    def prefill(self, ids: list[int]) -> float:
        """Seconds for the prompt and the first token."""
        start = time.perf_counter()
        self.greedy(ids, 1)
        return time.perf_counter() - start

    def decode(self, ids: list[int], count: int) -> float:
        """Seconds a token after the first: generate() of count + 1 tokens less generate() of one."""
        first = self.prefill(ids)
        start = time.perf_counter()
        self.greedy(ids, count + 1)
        return (time.perf_counter() - start - first) / count


class HuggingFaceCompiled(HuggingFace):
    """torch.compile of the decode step over a static cache; the prompt runs eagerly, as in generate()."""

    def __init__(self, model: str, threads: int):
        from transformers import StaticCache

        super().__init__(model, threads)
        self.cache = StaticCache(config=self.model.config, max_cache_len=1024)
        self.step = torch.compile(self.model.forward, dynamic=False)

    @torch.inference_mode()
    def _run(self, ids: list[int], count: int) -> tuple[list[int], float]:
        self.cache.reset()
        forward = self.model.forward
        logits = forward(
            torch.tensor([ids]), past_key_values=self.cache, use_cache=True, logits_to_keep=1
        ).logits
        tokens = [int(logits[0, -1].argmax())]
        start = time.perf_counter()
        for position in range(len(ids), len(ids) + count - 1):
            logits = self.step(
                torch.tensor([tokens[-1:]]),
                past_key_values=self.cache,
                position_ids=torch.tensor([[position]]),
                use_cache=True,
            ).logits
            tokens.append(int(logits[0, -1].argmax()))
        return tokens, time.perf_counter() - start

    def greedy(self, ids, count):
        return self._run(ids, count)[0]

    def decode(self, ids, count):
        return self._run(ids, count + 1)[1] / count


class Honed(HuggingFace):
    """The same model after honed.hone()."""

    weights: str | None = None

    def __init__(self, model: str, threads: int):
        super().__init__(model, threads)
        import honed

        honed.hone(self.model, weights=self.weights)
        self.bytes_a_token = honed.report(self.model).bytes


class HonedBf16(Honed):
    weights, bits = "bf16", 16


class HonedInt8(Honed):
    weights, bits = "int8", 8.5  # compared with q8_0


class HonedInt4(Honed):
    weights, bits = "int4", 4.5  # compared with q4_0


class LlamaCpp:
    """llama.cpp: only llama_decode is timed, the greedy choice in Python is not."""

    kind = "f16"
    flash_attention = False

    def __init__(self, model: str, threads: int):
        from make_gguf import make

        self.lib = llama_cpp = peer("llama_cpp")
        path = make(folder(model), FILE_CACHE / model, (self.kind,))[self.kind]
        # Every tensor is read once a token; the file is the tensors and a tokenizer.
        self.bytes_a_token = path.stat().st_size
        self.llama = llama_cpp.Llama(
            str(path),
            n_ctx=1024,
            n_batch=512,
            n_ubatch=512,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=self.flash_attention,
            logits_all=False,
            verbose=False,
        )
        self.context = self.llama.ctx
        self.vocabulary = self.llama.n_vocab()

    def _feed(self, ids: list[int]) -> float:
        array = (self.lib.llama_token * len(ids))(*ids)
        batch = self.lib.llama_batch_get_one(array, len(ids))
        start = time.perf_counter()
        status = self.lib.llama_decode(self.context, batch)
        self.lib.llama_synchronize(self.context)
        taken = time.perf_counter() - start
        if status != 0:
            raise RuntimeError(f"e2e: llama_decode gave {status} for {len(ids)} tokens, expected 0")
        return taken

    def _best(self) -> int:
        logits = self.lib.llama_get_logits_ith(self.context, -1)
        row = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self.vocabulary)).contents
        return int(np.frombuffer(row, dtype=np.float32).argmax())

    def _run(self, ids: list[int], count: int) -> tuple[list[int], float]:
        self.prefill(ids)
        tokens, seconds = [self._best()], 0.0
        while len(tokens) < count:
            seconds += self._feed(tokens[-1:])
            tokens.append(self._best())
        return tokens, seconds

    def greedy(self, ids: list[int], count: int) -> list[int]:
        return self._run(ids, count)[0]

    def prefill(self, ids: list[int]) -> float:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), False)
        return self._feed(ids)

    def decode(self, ids: list[int], count: int) -> float:
        return self._run(ids, count + 1)[1] / count


class CTranslate2:
    """CTranslate2's Generator; GPT-2 only."""

    compute_type, bits = "float32", 32

    def __init__(self, model: str, threads: int):
        ctranslate2 = peer("ctranslate2")
        if model != "gpt2":
            raise Unavailable(f"set up for gpt2, got {model}")
        out = FILE_CACHE / model / f"ct2-{self.compute_type}"
        if not (out / "model.bin").exists():
            source = FILE_CACHE / model / "ct2-source"
            source.mkdir(parents=True, exist_ok=True)
            for each in (*folder(model).iterdir(), *(MODEL_CACHE / "gpt2tok").iterdir()):
                if each.is_file() and not (source / each.name).exists():
                    (source / each.name).symlink_to(each)
            converter = ctranslate2.converters.TransformersConverter(str(source))
            converter.convert(str(out), quantization=self.compute_type, force=True)
        self.bytes_a_token = (out / "model.bin").stat().st_size
        self.generator = ctranslate2.Generator(
            str(out), device="cpu", compute_type=self.compute_type, intra_threads=threads, inter_threads=1
        )
        names = json.loads((MODEL_CACHE / "gpt2tok" / "vocab.json").read_text())
        self.tokens = {index: name for name, index in names.items()}

    def greedy(self, ids: list[int], count: int) -> list[int]:
        out = self.generator.generate_batch(
            [[self.tokens[i] for i in ids]],
            max_length=count,
            min_length=count,
            sampling_topk=1,
            beam_size=1,
            include_prompt_in_result=False,
        )
        return out[0].sequences_ids[0]

    prefill = HuggingFace.prefill
    decode = HuggingFace.decode


class CTranslate2Int8(CTranslate2):
    compute_type, bits = "int8", 8


def _llama(kind: str, bits: float, flash_attention: bool) -> type:
    return type("LlamaCpp", (LlamaCpp,), {"kind": kind, "bits": bits, "flash_attention": flash_attention})


PROVIDERS = {
    "hf": HuggingFace,
    "hf-compile": HuggingFaceCompiled,
    "honed": Honed,
    "honed-bf16": HonedBf16,
    "honed-int8": HonedInt8,
    "honed-int4": HonedInt4,
    "ctranslate2": CTranslate2,
    "ctranslate2-int8": CTranslate2Int8,
}
for _kind, _bits in (("f16", 16), ("q8_0", 8.5), ("q4_0", 4.5), ("q4_0-head8", 4.5)):
    PROVIDERS[f"llama.cpp-{_kind}"] = _llama(_kind, _bits, False)
    PROVIDERS[f"llama.cpp-{_kind}-fa"] = _llama(_kind, _bits, True)

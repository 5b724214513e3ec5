"""One prompt written on under several decoding strategies, side by side."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

# Name: options of ``model.generate``. Filters stand alone: top_k, 50 by transformers' default, is off where
# it is not the point.
STRATEGIES: dict[str, dict] = {
    "greedy": {},
    "beam search": {"num_beams": 4},
    "diverse beams": {"num_beams": 4, "num_beam_groups": 4, "diversity_penalty": 1.0},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "dola": {"dola_layers": "high", "repetition_penalty": 1.2},
    "prompt lookup": {"prompt_lookup_num_tokens": 5},
    "dry": {"dry_multiplier": 0.8},
    "sampling": {"do_sample": True, "top_k": 0},
    "temperature": {"do_sample": True, "top_k": 0, "temperature": 0.7},
    "top-k": {"do_sample": True, "top_k": 50},
    "top-p": {"do_sample": True, "top_k": 0, "top_p": 0.95},
    "min-p": {"do_sample": True, "top_k": 0, "min_p": 0.1},
    "typical": {"do_sample": True, "top_k": 0, "typical_p": 0.9},
    "epsilon": {"do_sample": True, "top_k": 0, "epsilon_cutoff": 3e-4},
    "eta": {"do_sample": True, "top_k": 0, "eta_cutoff": 3e-4},
    "top-h": {"do_sample": True, "top_k": 0, "top_h": 0.4},
    "top-n-sigma": {"do_sample": True, "top_k": 0, "top_n_sigma": 1.0},
    "xtc": {"do_sample": True, "top_k": 0, "min_p": 0.02, "xtc_probability": 0.5},
    "mirostat": {"do_sample": True, "top_k": 0, "mirostat": 2},
    "beam sampling": {"do_sample": True, "top_k": 50, "num_beams": 4},
}


@dataclass(frozen=True)
class Outcome:
    """What a strategy wrote.

    ``log_probability``: mean over its tokens of the model's own log-probability, nat a token, whatever the
    strategy did to the distribution; the end-of-text token counts. ``repetition``: share of its 4-grams that
    it had written before, ``1 - distinct_4``. ``distinct_n``: different n-grams by all n-grams. nan where the
    text is too short.
    """

    strategy: str
    options: dict
    text: str
    tokens: int
    log_probability: float
    repetition: float
    distinct_1: float
    distinct_2: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def distinct(tokens: list[int], n: int) -> float:
    """Different n-grams by all n-grams; nan without any.

    Source: Li et al. 2016, https://arxiv.org/abs/1510.03055

    >>> distinct([1, 2, 1, 2], 2)
    0.6666666666666666
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def compare(
    model,
    tokenizer,
    prompt: str,
    strategies: Iterable[str] | None = None,
    *,
    seed: int = 0,
    max_new_tokens: int = 64,
):
    """Yields an :class:`Outcome` for each of ``strategies`` (all of :data:`STRATEGIES`), the same seed each.

    Args:
        model: a causal language model of transformers, honed or not. tokenizer: its tokenizer.
        prompt: text, not empty.

    Raises:
        ValueError: a strategy that is not in :data:`STRATEGIES`, an empty prompt.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> import honed, torch
    >>> config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
    ...                      num_attention_heads=2, num_key_value_heads=1, eos_token_id=None)
    >>> class Letters:
    ...     def __call__(self, text, return_tensors):
    ...         ids = torch.tensor([[ord(letter) % 64 for letter in text]])
    ...         return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    ...     def decode(self, ids, skip_special_tokens):
    ...         return "".join(chr(64 + i) for i in ids)
    >>> model = honed.hone(LlamaForCausalLM(config).eval())
    >>> [made.tokens for made in compare(model, Letters(), "hello", ["greedy", "top-p"], max_new_tokens=5)]
    [5, 5]
    """
    chosen = list(STRATEGIES) if strategies is None else list(strategies)
    unknown = [name for name in chosen if name not in STRATEGIES]
    if unknown:
        raise ValueError(f"compare: {', '.join(unknown)}: expected one of {', '.join(STRATEGIES)}")
    encoded = tokenizer(prompt, return_tensors="pt")
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    length = inputs["input_ids"].shape[1]
    if length == 0:
        raise ValueError("compare: the prompt has no tokens, expected at least one")
    return _outcomes(model, tokenizer, inputs, length, chosen, seed, max_new_tokens)


def _outcomes(model, tokenizer, inputs, length, chosen, seed, max_new_tokens):
    with torch.inference_mode():
        model.generate(**inputs, do_sample=False, max_new_tokens=1)  # packs weights, touches them once
        for name in chosen:
            torch.manual_seed(seed)
            options = {"do_sample": False, **STRATEGIES[name]}
            begin = time.perf_counter()
            sequence = model.generate(**inputs, max_new_tokens=max_new_tokens, **options)[0]
            seconds = time.perf_counter() - begin
            new = sequence[length:].tolist()
            yield Outcome(
                strategy=name,
                options=STRATEGIES[name],
                text=tokenizer.decode(new, skip_special_tokens=True),
                tokens=len(new),
                log_probability=_log_probability(model, sequence, length),
                repetition=1 - distinct(new, 4),
                distinct_1=distinct(new, 1),
                distinct_2=distinct(new, 2),
                seconds=seconds,
            )


def _log_probability(model, sequence, length) -> float:
    logits = model(sequence[None, :-1]).logits[0, length - 1 :].float()
    return torch.log_softmax(logits, -1).gather(1, sequence[length:, None]).mean().item()

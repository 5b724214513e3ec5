"""Tiny random models of every family, and a byte tokenizer made in code."""

import copy

import pytest
import torch
import transformers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import honed

transformers.logging.set_verbosity_error()

VOCABULARY = 259
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    **SPECIAL,
}


def _rope(kind, **options):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **options}}


_LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3["original_max_position_embeddings"] = 32
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, **SPECIAL}

MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama-tied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "llama-multi-query": (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 1}),
    "llama-biases": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama-head-dim": (LlamaForCausalLM, LlamaConfig, {"head_dim": 24}),
    "llama-linear-rope": (LlamaForCausalLM, LlamaConfig, _rope("linear", factor=2.0)),
    "llama-llama3-rope": (LlamaForCausalLM, LlamaConfig, _rope("llama3", **_LLAMA3)),
    "llama-yarn-rope": (
        LlamaForCausalLM,
        LlamaConfig,
        _rope("yarn", factor=4.0, original_max_position_embeddings=32),
    ),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 32}),
    "gpt2": (GPT2LMHeadModel, GPT2Config, {**_GPT2, "initializer_range": 0.15}),
}


def make(name, **changes):
    """A model of ``MODELS`` in eval mode, always with the same weights; biases and norms are not trivial."""
    cls, config, options = MODELS[name]
    torch.manual_seed(len(name))
    model = cls(config(**{**({} if name == "gpt2" else SIZES), **options, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def pair(name, **changes):
    """The same model twice: plain, and honed in exact mode."""
    plain = make(name, **changes)
    return plain, honed.hone(copy.deepcopy(plain))


def prompt(rows=2, length=11, seed=3):
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def close(got, expected):
    """Within 1e-4 of the largest expected value."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    error = (got - expected).abs().max().item() / expected.abs().max().item()
    assert error < 1e-4, f"relative error {error:.2g}"


def on_engine(model):
    """No call of this model ran on torch."""
    found = honed.report(model)
    assert not found.fallbacks, found.fallbacks
    assert found.calls > 0


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", "<pad>", *letters]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )

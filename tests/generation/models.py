"""Tiny models that the strategies are tried on: on the engine, by layers, encoder-decoder."""

import copy

import torch
from tests.hf.conftest import SPECIAL, VOCABULARY, make
from transformers import OPTConfig, OPTForCausalLM, T5Config, T5ForConditionalGeneration

import honed


def _opt():
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        word_embed_proj_dim=48,
        ffn_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        init_std=0.15,
        **SPECIAL,
    )
    return OPTForCausalLM(config)


def _t5():
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=48,
        d_kv=12,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        initializer_factor=1.0,
        decoder_start_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return T5ForConditionalGeneration(config)


OTHERS = {"opt": _opt, "t5": _t5}
NAMES = ("llama", "gpt2", *OTHERS)


def pair(name, **changes):
    """The same model twice: plain, and honed; llama and gpt2 run on the engine."""
    if name in OTHERS:
        torch.manual_seed(5)
        plain = OTHERS[name]().eval()
    else:
        plain = make(name, num_hidden_layers=4, **changes) if name == "llama" else make(name, n_layer=4)
    return plain, honed.hone(copy.deepcopy(plain))


def full(model, ids, start, **options):
    """The model's answer for one row without a cache: ids is the prompt, start what the decoder begins with
    (for a decoder: nothing)."""
    if model.config.is_encoder_decoder:
        return model(input_ids=ids, decoder_input_ids=start, use_cache=False, **options)
    return model(torch.cat((ids, start), 1), use_cache=False, **options)


def first(model, ids):
    """What a row is before its first new token, as ``generate`` returns it."""
    rows = ids.shape[0]
    if model.config.is_encoder_decoder:
        return torch.full((rows, 1), model.config.decoder_start_token_id)
    return ids.new_empty((rows, 0))


def states(model, outputs):
    return outputs.decoder_hidden_states if model.config.is_encoder_decoder else outputs.hidden_states


def until_eos(model, tokens, new):
    """The new tokens of a row up to its end token, then padding up to ``new``."""
    made = list(tokens)
    if model.config.eos_token_id in made:
        made = made[: made.index(model.config.eos_token_id) + 1]
    return made + [model.config.pad_token_id] * (new - len(made))

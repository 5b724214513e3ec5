"""Model families as data: where a decoder keeps what the engine needs, and what it must not have."""

from __future__ import annotations

from dataclasses import dataclass, replace


class Unsupported(Exception):
    """A model, or a part of it, that the engine does not take. The text is the reason shown by ``report``."""


@dataclass(frozen=True)
class Family:
    """Paths of modules: relative to the model above ``attention``, to one layer from there on.

    Weights of ``torch.nn.Linear`` and of GPT-2's ``Conv1D`` are told apart by their class; head counts, sizes
    and the kind of norm are read from the modules themselves.
    """

    embedding: str
    layers: str
    final_norm: str
    head: str
    attention: str  # holds .scaling
    attention_norm: str
    qkv: tuple[str, ...]  # one fused projection, or query, key, value
    attention_out: str
    mlp_norm: str
    up: tuple[str, ...]  # (up,) or (gate, up)
    down: str
    activation: str  # name of the config's field
    activation_module: str  # of the type that the config names
    output: str  # class in transformers.modeling_outputs
    position_embedding: str | None = None
    rotary: str | None = None
    head_norms: tuple[str, str] | None = None  # RMS norms of query and key heads
    requires: tuple[tuple[str, object], ...] = ()  # config fields and the only value that the engine computes

    @property
    def gated(self) -> bool:
        return len(self.up) == 2


_LLAMA = Family(
    embedding="model.embed_tokens",
    layers="model.layers",
    final_norm="model.norm",
    head="lm_head",
    rotary="model.rotary_emb",
    attention="self_attn",
    attention_norm="input_layernorm",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_out="self_attn.o_proj",
    mlp_norm="post_attention_layernorm",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    activation="hidden_act",
    activation_module="mlp.act_fn",
    output="CausalLMOutputWithPast",
)

_GPT2 = Family(
    embedding="transformer.wte",
    position_embedding="transformer.wpe",
    layers="transformer.h",
    final_norm="transformer.ln_f",
    head="lm_head",
    attention="attn",
    attention_norm="ln_1",
    qkv=("attn.c_attn",),
    attention_out="attn.c_proj",
    mlp_norm="ln_2",
    up=("mlp.c_fc",),
    down="mlp.c_proj",
    activation="activation_function",
    activation_module="mlp.act",
    output="CausalLMOutputWithCrossAttentions",
    requires=(
        ("scale_attn_by_inverse_layer_idx", False),
        ("reorder_and_upcast_attn", False),
        ("add_cross_attention", False),
    ),
)

FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": replace(_LLAMA, head_norms=("self_attn.q_norm", "self_attn.k_norm")),
    "gpt2": _GPT2,
}

# transformers' activation names -> the engine's.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

# Rotary types whose table is a function of the position alone.
FIXED_ROPES = ("default", "linear", "llama3", "yarn", "proportional")

# How a matrix is stored, by mode: the part's own entry, else "*". Exact mode (None) looks at the values.
RECIPES = {
    "bf16": {"*": "bf16"},
    "fp16": {"*": "f16"},
    "int8": {"*": "int8"},
    "int4": {"*": "int4", "head": "int8"},
}

# Element type of keys and values in the cache, by mode.
CACHE_DTYPES = {None: "f32", "bf16": "f16", "fp16": "f16", "int8": "f16", "int4": "f16"}


def storage_for(part: str, mode: str | None) -> str:
    """The kind that the weights of a part ("qkv", "head", ...) are packed in.

    ``exact``: the cheapest kind that holds every value of every weight exactly.
    """
    if mode is None:
        return "exact"
    recipe = RECIPES[mode]
    return recipe.get(part, recipe["*"])

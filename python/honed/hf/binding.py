"""Reads a model against its family's description: the engine's description, and the parts to be packed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers.activations import ACT2FN
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from honed.hf.families import ACTIVATIONS, FAMILIES, FIXED_ROPES, Family, Unsupported

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Part:
    """Some of the model's modules that become one entry of the engine's weights."""

    key: str  # the engine's name for it
    layer: int | None
    modules: tuple[torch.nn.Module, ...]
    names: tuple[str, ...]  # of the modules, in the model
    packed: bool  # a matrix to be packed, or a tensor taken as it is

    @property
    def weights(self) -> list[torch.Tensor]:
        return [_matrix(module) for module in self.modules]

    @property
    def biases(self) -> list[torch.Tensor] | None:
        found = [module.bias for module in self.modules]
        return None if all(bias is None for bias in found) else [bias.detach() for bias in found]


@dataclass(frozen=True)
class Binding:
    """What a model looks like to the engine."""

    family: Family
    description: dict
    parts: tuple[Part, ...]
    rope: tuple[torch.Tensor, torch.Tensor] | None
    limit: int  # longest context that the engine computes as the model does
    limit_is_window: bool  # the limit is a sliding window: torch goes on beyond it
    links: list = field(repr=False)  # (dict of a module's children, the children when it was read)
    slots: list = field(repr=False)  # (dict of a module's parameters, name)
    hooks: list = field(repr=False)  # dicts of forward hooks
    attributes: list = field(repr=False)  # dicts of the submodules' attributes
    settings: list = field(repr=False)  # (dict of a module's attributes, name, the value when it was read)


def bind(model) -> Binding:
    """Describes ``model``, or raises :class:`Unsupported` with the reason."""
    family = _family_of(model)
    config = model.config
    for name, value in family.requires:
        if getattr(config, name, value) != value:
            raise Unsupported(f"config.{name} is {getattr(config, name)!r}, the engine computes {value!r}")
    _check_modules(model)
    parts = _parts(model, family)
    window = _window(config)
    limit = min(config.max_position_embeddings, window or config.max_position_embeddings)
    modules = [module for part in parts for module in part.modules]
    return Binding(
        family=family,
        description=_describe(model, family, parts, limit),
        parts=parts,
        rope=_rope_table(model.get_submodule(family.rotary), limit) if family.rotary else None,
        limit=limit,
        limit_is_window=limit < config.max_position_embeddings,
        links=[(m._modules, tuple(m._modules.values())) for m in model.modules() if m._modules],
        slots=[(m._parameters, name) for m in dict.fromkeys(modules) for name in m._parameters],
        hooks=[
            hooks
            for module in model.modules()
            if module is not model
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
        ],
        attributes=[module.__dict__ for module in model.modules() if module is not model],
        settings=[
            (module.__dict__, name, getattr(module, name))
            for module, name in [
                *((part.modules[0], _norm_kind(part)[1]) for part in parts if part.key.endswith("norm")),
                *((layer.get_submodule(family.attention), "scaling") for layer in _layers(model, family)),
            ]
        ],
    )


def _family_of(model) -> Family:
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if kind is None:
        raise Unsupported(f"{type(model).__name__} is not a transformers model")
    family = FAMILIES.get(kind)
    if family is None:
        raise Unsupported(f"model family {kind!r} is not known (known: {', '.join(sorted(FAMILIES))})")
    if getattr(model, "hf_device_map", None) is not None and len(set(model.hf_device_map.values())) > 1:
        raise Unsupported("the model is spread over several devices")
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    owner = next(cls for cls in type(model).__mro__ if "forward" in vars(cls))
    if owner.__name__ not in ((names,) if isinstance(names, str) else names):
        raise Unsupported(f"{type(model).__name__} is not the {kind} language model {names}")
    if not owner.__module__.startswith("transformers.models."):
        raise Unsupported(f"{type(model).__name__}.forward is not transformers' own")
    return family


def _check_modules(model) -> None:
    for name, module in model.named_modules():
        if module is model:
            continue
        origin = type(module).__module__
        if not origin.startswith(("torch.nn.modules.", "transformers.")):
            raise Unsupported(f"{name} is a {origin.split('.')[0]} {type(module).__name__}")
        if "forward" in module.__dict__:
            raise Unsupported(f"{name}.forward was replaced")
    for name, parameter in model.named_parameters():
        if type(parameter) is not torch.nn.Parameter:
            raise Unsupported(f"{name} is a {type(parameter).__name__}")
        if parameter.device.type != "cpu":
            raise Unsupported(f"{name} is on {parameter.device}, the engine runs on the CPU")
        if parameter.dtype not in _FLOATS:
            raise Unsupported(f"{name} is {str(parameter.dtype).removeprefix('torch.')}")


def _matrix(module) -> torch.Tensor:
    weight = module.weight.detach()
    return weight.t() if type(module) is Conv1D else weight


def _parts(model, family) -> tuple[Part, ...]:
    def part(key, names, packed=False, layer=None, prefix=""):
        names = tuple(prefix + name for name in names)
        try:
            modules = tuple(model.get_submodule(name) for name in names)
        except AttributeError:
            raise Unsupported(f"{' '.join(names)} not found in {type(model).__name__}") from None
        for name, module in zip(names, modules, strict=True):
            if packed and type(module) not in (torch.nn.Linear, Conv1D):
                raise Unsupported(f"{name} is a {type(module).__name__}, expected Linear or Conv1D")
        if packed and len({module.bias is None for module in modules}) != 1:
            raise Unsupported(f"{' '.join(names)}: some have a bias, some have none")
        return Part(key, layer, modules, names, packed)

    found = [part("embedding", [family.embedding])]
    if family.position_embedding:
        found.append(part("position_embedding", [family.position_embedding]))
    found += [part("final_norm", [family.final_norm]), part("head", [family.head], packed=True)]
    count = min(len(model.get_submodule(family.layers)), model.config.num_hidden_layers)
    if count == 0:
        raise Unsupported("the model has no layers")
    for layer in range(count):
        at = {"layer": layer, "prefix": f"{family.layers}.{layer}."}
        found.append(part("attention_norm", [family.attention_norm], **at))
        found.append(part("qkv", family.qkv, packed=True, **at))
        if family.head_norms:
            found += [
                part(key, [name], **at)
                for key, name in zip(("q_norm", "k_norm"), family.head_norms, strict=True)
            ]
        found.append(part("attention_out", [family.attention_out], packed=True, **at))
        found.append(part("mlp_norm", [family.mlp_norm], **at))
        found.append(part("up", family.up, packed=True, **at))
        found.append(part("down", [family.down], packed=True, **at))
    for entry in found:
        if "embedding" in entry.key and (
            type(entry.modules[0]) is not torch.nn.Embedding or entry.modules[0].max_norm is not None
        ):
            raise Unsupported(
                f"{entry.names[0]} is a {type(entry.modules[0]).__name__}, expected a plain Embedding"
            )
    return tuple(found)


def _describe(model, family, parts, limit) -> dict:
    config = model.config
    by_key = {part.key: part for part in parts if part.layer in (None, 0)}
    vocabulary, hidden = by_key["embedding"].modules[0].weight.shape
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    activation = getattr(config, family.activation)
    if activation not in ACTIVATIONS:
        raise Unsupported(f"activation {activation!r} is not one of {', '.join(sorted(ACTIVATIONS))}")
    _check_activations(model, family, activation)
    scales = {layer.get_submodule(family.attention).scaling for layer in _layers(model, family)}
    if len(scales) != 1:
        raise Unsupported("the attention scale differs between layers")
    norm, eps = _norm_of([part for part in parts if part.key.endswith("norm")])
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_layers": sum(part.key == "qkv" for part in parts),
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": by_key["down"].weights[0].shape[1],
        "max_positions": limit,
        "norm": norm,
        "norm_eps": eps,
        "position": "rope" if family.rotary else "learned",
        "position_offset": 0,
        "rope_interleaved": False,
        "activation": ACTIVATIONS[activation],
        "gated": family.gated,
        "parallel_residual": False,
        "attention_scale": scales.pop(),
        "attention_softcap": 0.0,
        "logit_softcap": 0.0,
        "embedding_scale": 1.0,
    }


def _layers(model, family):
    return model.get_submodule(family.layers)


def _check_activations(model, family, name) -> None:
    """The modules that compute, not the config, say what the model does."""
    expected = type(ACT2FN[name])
    for index, layer in enumerate(_layers(model, family)):
        where = f"{family.layers}.{index}.{family.activation_module}"
        try:
            found = type(layer.get_submodule(family.activation_module))
        except AttributeError:
            raise Unsupported(f"{where} is not a module") from None
        if found is not expected:
            raise Unsupported(f"{where} is a {found.__name__}, expected {expected.__name__} for {name!r}")


def _norm_kind(part) -> tuple[str, str]:
    """The engine's name for a norm, and the attribute that holds its epsilon."""
    module = part.modules[0]
    if type(module) is torch.nn.LayerNorm:
        return "layer_norm", "eps"
    # torch.nn.RMSNorm has an eps instead, which may be None.
    if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        return "rms_norm", "variance_epsilon"
    kind = f"{type(module).__module__}.{type(module).__name__}"
    raise Unsupported(f"{part.names[0]} is a {kind}, expected a LayerNorm or transformers' RMS norm")


def _norm_of(parts):
    kinds = set()
    for part in parts:
        kind, eps = _norm_kind(part)
        kinds.add((kind, getattr(part.modules[0], eps)))
    if len(kinds) != 1:
        raise Unsupported(f"norms differ between layers: {sorted(kinds)}")
    return kinds.pop()


def _window(config) -> int | None:
    """The sliding window, when any layer has one."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return window


@torch.no_grad()
def _rope_table(rotary, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The cosines and sines that the model's own module computes in float32, each angle once."""
    if rotary.rope_type not in FIXED_ROPES:
        raise Unsupported(f"rope type {rotary.rope_type!r} changes with the length of the input")
    at = torch.arange(positions)[None]
    cos, sin = type(rotary).forward(rotary, torch.zeros(1, dtype=torch.float32), at)
    half = cos.shape[-1] // 2
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()

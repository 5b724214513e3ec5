"""A model and its tokenizer from a folder, a GGUF file or a name on the Hub."""

from __future__ import annotations

import struct
from pathlib import Path

import torch


def load(path, dtype=None):
    """``(model, tokenizer)`` of a causal language model, in eval mode.

    Args:
        path: a folder as ``save_pretrained`` writes it, a ``.gguf`` file, or a name on the Hugging Face Hub.
        dtype: of the weights; ``None`` keeps that of the files (float32 for GGUF).

    Raises:
        ValueError: a file that is damaged, cut short or not of its kind, or a name that cannot be had; the
            text names it.

    Source: https://huggingface.co/docs/transformers/main/en/gguf
    """
    path = Path(path).expanduser() if _looks_local(path) else path
    if isinstance(path, Path) and path.suffix == ".gguf":
        template = _check_gguf(path)
        model, tokenizer = _from_pretrained(path.parent, path, dtype or torch.float32, gguf_file=path.name)
        if tokenizer.chat_template is None:
            tokenizer.chat_template = template
        return _plain(model), tokenizer
    if isinstance(path, Path):
        if not (path / "config.json").is_file():
            raise ValueError(f"load: {path} has no config.json, expected a folder written by save_pretrained")
        for file in sorted(path.glob("*.safetensors")):
            _check_safetensors(file)
    return _from_pretrained(path, path, dtype or "auto")


def _looks_local(path) -> bool:
    text = str(path)
    return (
        isinstance(path, Path)
        or text.endswith(".gguf")
        or text.startswith(("/", ".", "~"))
        or Path(text).exists()
    )


def _from_pretrained(path, shown, dtype, **extra):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **extra)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **extra)
    except Exception as error:
        first = str(error).strip().splitlines()
        raise ValueError(f"load: {shown}: {first[0] if first else type(error).__name__}") from error
    return model.eval(), tokenizer


def _plain(model):
    """A model read from GGUF, without the mark of a quantised one: its weights are ordinary tensors by now.

    transformers would refuse to save or train it otherwise.
    """
    if all(p.is_floating_point() for p in model.parameters()):
        model.hf_quantizer = None
        for owner, name in (
            (model, "is_quantized"),
            (model, "quantization_method"),
            (model.config, "quantization_config"),
        ):
            if name in vars(owner):
                delattr(owner, name)
    return model


def _check_gguf(path: Path) -> str | None:
    """Looks whether the file is as long as its tensors say; returns its chat template."""
    from gguf import GGUFReader

    if not path.is_file():
        raise ValueError(f"load: {path} is not a file")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"load: {path} starts with {magic!r}, expected b'GGUF': not a GGUF file")
    try:
        field = GGUFReader(path).fields.get("tokenizer.chat_template")
        return None if field is None else bytes(field.parts[field.data[0]]).decode()
    except Exception as error:
        raise ValueError(f"load: {path} is damaged or cut short ({type(error).__name__}: {error})") from error


def _check_safetensors(path: Path) -> None:
    """Header, and that the file is as long as its header says. Eight bytes of length, then JSON."""
    import json

    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        end = max(
            (entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0
        )
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes, expected {8 + length + end}")
    except Exception as error:
        raise ValueError(f"load: {path} is damaged or cut short ({error})") from error

"""Reads a model's folder as transformers writes it."""

from __future__ import annotations

import json
from pathlib import Path


def read(folder, kind: str, prefix: str):
    """Configuration and weights of a folder whose ``model_type`` is ``kind``; names lose ``prefix``.

    Raises:
        FileNotFoundError: no ``config.json`` or no safetensors file. ValueError: another kind of model.
    """
    from safetensors.torch import load_file

    folder = Path(folder).expanduser()
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != kind:
        raise ValueError(f"from_pretrained: {folder} holds a {config.get('model_type')!r}, expected {kind!r}")
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise FileNotFoundError(f"from_pretrained: {folder} holds no model.safetensors")
    state = {}
    for file in files:
        state |= load_file(file)
    return config, {name.removeprefix(prefix): value for name, value in state.items()}

"""Reads a model's folder as transformers or torchvision write it."""

from __future__ import annotations

import json
from pathlib import Path


def weights(folder) -> dict:
    """The tensors of ``model*.safetensors``, or of the one ``.pth`` file; ``folder`` may be a file itself.

    Raises:
        FileNotFoundError: there is none. ValueError: several ``.pth`` files.
    """
    import torch
    from safetensors.torch import load_file

    folder = Path(folder).expanduser()
    if folder.is_file():
        files = [folder]
    else:
        files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.pth"))
    if not files:
        raise FileNotFoundError(f"from_pretrained: {folder} holds no model.safetensors or .pth file")
    if files[0].suffix == ".pth" and len(files) > 1:
        raise ValueError(f"from_pretrained: {folder} holds {len(files)} .pth files, expected one")
    state = {}
    for file in files:
        pickled = file.suffix == ".pth"
        state |= torch.load(file, map_location="cpu", weights_only=True) if pickled else load_file(file)
    return state


def fill(model, state):
    """The model with these weights, in their type and in eval mode.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    model.load_state_dict(state)
    return model.to(next(v.dtype for v in state.values() if v.is_floating_point())).eval()


def read(folder, kind: str, prefix: str):
    """Configuration and weights of a folder whose ``model_type`` is ``kind``; names lose ``prefix``.

    Raises:
        FileNotFoundError: no ``config.json`` or no safetensors file. ValueError: another kind of model.
    """
    folder = Path(folder).expanduser()
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != kind:
        raise ValueError(f"from_pretrained: {folder} holds a {config.get('model_type')!r}, expected {kind!r}")
    return config, {name.removeprefix(prefix): value for name, value in weights(folder).items()}

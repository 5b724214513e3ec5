"""Folders and GGUF files: read whole, or refused in one line that names the file."""

import shutil

import pytest
import torch
from tests.hf.conftest import make, prompt

import honed
from honed.hf import load


@pytest.fixture
def folder(tmp_path, tokenizer):
    make("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_folder(folder):
    model, tokenizer = load(folder)
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(prompt()).logits, make("llama")(prompt()).logits)
    assert tokenizer.decode(tokenizer("a b").input_ids) == "a b"
    assert load(str(folder), dtype=torch.bfloat16)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("cut", ["half", "header", "empty", "longer", "garbage"])
def test_damaged_safetensors(folder, cut):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(
        {
            "half": data[: len(data) // 2],
            "header": data[:20],
            "empty": b"",
            "longer": data + b"more",
            "garbage": b"\xff" * 100,
        }[cut]
    )
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or cut short"):
        load(folder)


def test_missing(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"nothing\.gguf"):
        load(tmp_path / "nothing.gguf")


def test_not_a_gguf_file(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGML" + bytes(100))
    with pytest.raises(ValueError, match=r"a\.gguf.*not a GGUF file"):
        load(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").write_bytes(b"GGUF" + bytes(3))
    with pytest.raises(ValueError, match=r"b\.gguf is damaged or cut short"):
        load(tmp_path / "b.gguf")


def test_unknown_name_says_so_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="nobody/nothing-like-this"):
        load("nobody/nothing-like-this")


def test_gguf(smollm2, tmp_path):
    cut = tmp_path / "cut.gguf"
    with smollm2.open("rb") as source, cut.open("wb") as target:
        shutil.copyfileobj(source, target)
    with cut.open("r+b") as file:
        file.truncate(cut.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"cut\.gguf is damaged or cut short"):
        load(cut)


PROMPTS = ("The sea is", "def add(a, b):\n    return", "Q: What is 2+2?\nA:")


def test_real_model_writes_the_same_text(smollm2, tmp_path):
    model, tokenizer = load(smollm2)
    assert "<|im_start|>" in tokenizer.chat_template
    batch = tokenizer(list(PROMPTS), return_tensors="pt", padding=True, padding_side="left")
    beams = {"num_beams": 2, "max_new_tokens": 6, **{name: value[:1] for name, value in batch.items()}}
    runs = [{"max_new_tokens": 24, **batch}, beams]
    plain = [model.generate(**run, do_sample=False) for run in runs]
    honed.hone(model)
    for run, expected in zip(runs, plain, strict=True):
        assert torch.equal(model.generate(**run, do_sample=False), expected)
    assert not honed.report(model).fallbacks
    honed.unhone(model).save_pretrained(tmp_path)  # nothing of the GGUF file's quantisation is left

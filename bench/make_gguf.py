"""GGUF files of one model at several element types, for llama.cpp in bench/e2e.py.

    python bench/make_gguf.py FOLDER OUT

FOLDER is a Hugging Face folder of GPT-2, or one that holds a GGUF file. There its metadata, tokenizer
and (dequantised) tensors are kept and only the element types change, so llama.cpp's order of the query
and key rows stays right. All matrices get the named type, the embedding too: the fewest bytes, which is
llama.cpp's fastest setting; q4_0-head8 keeps the embedding, and with it the head, at q8_0, as files that
people run do. Vectors and position embeddings stay f32.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

# Kind of file: type of the matrices, type of the embedding (which is the head too), llama.cpp's name.
KINDS = {
    "f32": (Type.F32, Type.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Type.F16, Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Type.Q8_0, Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Type.Q4_0, Type.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "q4_0-head8": (Type.Q4_0, Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}


def _from_gguf(path: Path):
    """(architecture, [(key, value, type, item type)], {name: f32 array}) of a GGUF file."""
    reader = gguf.GGUFReader(path)
    fields = []
    for field in reader.fields.values():
        # The writer makes these itself.
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        fields.append(
            (field.name, field.contents(), field.types[0], field.types[1] if len(field.types) > 1 else None)
        )
    tensors = {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors
    }
    return reader.fields["general.architecture"].contents(), fields, tensors


def _from_gpt2(folder: Path):
    """The same of a Hugging Face GPT-2 folder; without a tokenizer, since the benchmark passes token ids."""
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "gpt2":
        raise ValueError(
            f"make_gguf: {folder} is a {config['model_type']} model, expected gpt2 or a folder with a .gguf"
        )
    u32, f32, text = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.FLOAT32, gguf.GGUFValueType.STRING
    fields = [
        ("gpt2.block_count", config["n_layer"], u32, None),
        ("gpt2.context_length", config["n_positions"], u32, None),
        ("gpt2.embedding_length", config["n_embd"], u32, None),
        ("gpt2.feed_forward_length", config.get("n_inner") or 4 * config["n_embd"], u32, None),
        ("gpt2.attention.head_count", config["n_head"], u32, None),
        ("gpt2.attention.layer_norm_epsilon", config["layer_norm_epsilon"], f32, None),
        ("gpt2.vocab_size", config["vocab_size"], u32, None),
        ("tokenizer.ggml.model", "no_vocab", text, None),
    ]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config["n_layer"])
    tensors = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        stem, _, suffix = name.rpartition(".")
        # Conv1D keeps (inputs, outputs); GGUF wants rows of inputs.
        if suffix == "weight" and stem.rpartition(".")[2] in ("c_attn", "c_proj", "c_fc"):
            value = value.T
        tensors[f"{names.get_name(stem)}.{suffix}"] = np.ascontiguousarray(value, dtype=np.float32)
    return "gpt2", fields, tensors


def make(folder: Path, out: Path, kinds=("f16", "q8_0", "q4_0")) -> dict[str, Path]:
    """Writes the missing ones of ``out/<kind>.gguf`` and returns their paths by kind."""
    paths = {kind: out / f"{kind}.gguf" for kind in kinds}
    missing = [kind for kind in kinds if not paths[kind].exists()]
    if not missing:
        return paths
    found = sorted(folder.glob("*.gguf"))
    architecture, fields, tensors = _from_gguf(found[0]) if found else _from_gpt2(folder)
    out.mkdir(parents=True, exist_ok=True)
    for kind in missing:
        partial = paths[kind].with_suffix(".partial")
        writer = gguf.GGUFWriter(partial, architecture)
        matrix_type, embedding_type, file_type = KINDS[kind]
        writer.add_file_type(file_type)
        for key, value, value_type, item_type in fields:
            writer.add_key_value(key, value, value_type, sub_type=item_type)
        for name, value in tensors.items():
            plain = value.ndim == 1 or name.startswith("position_embd")
            type_ = embedding_type if name.startswith("token_embd") else matrix_type
            type_ = Type.F32 if plain else type_
            writer.add_tensor(name, gguf.quants.quantize(value, type_), raw_dtype=type_)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.rename(paths[kind])
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", default="f16,q8_0,q4_0", help=f"of {', '.join(KINDS)}")
    arguments = parser.parse_args()
    for kind, path in make(arguments.folder, arguments.out, arguments.kinds.split(",")).items():
        print(f"{kind:5} {path.stat().st_size / 1e6:7.1f} MB  {path}")

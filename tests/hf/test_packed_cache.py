"""Packed weights in a file: mapped where it holds these weights, packed so; else written anew."""

import copy
import json
import multiprocessing
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tests.hf.conftest import MODELS, close, make, on_engine, prompt

import honed
from honed._lib import _core
from honed.hf import packed_file


def _logits(model):
    with torch.no_grad():
        return model(prompt()).logits


def _hone(model, path, weights=None):
    return honed.hone(copy.deepcopy(model), weights=weights, packed_cache=path)


def _mapped(model, path):
    """Every packed weight lies in a map of the file."""
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    extents = [
        [int(each, 16) for each in fields[0].split("-")]
        for fields in maps
        if fields[-1] == str(path) and fields[1] == "r--s"
    ]
    found = [
        any(begin <= np.frombuffer(memory, np.uint8).ctypes.data < end for begin, end in extents)
        for packed in model._honed.packs.values()
        for memory in _core.memory_of(packed).values()
    ]
    assert len(set(found)) == 1
    return found[0]


def _on_grid(rows, columns):
    """Weights as a 4-bit file has them: every group of 32 reaches both ends of its grid."""
    codes = torch.arange(rows * columns).view(rows, columns) * 7 % 16
    codes[:, ::32], codes[:, 1::32] = 0, 15
    return codes * 0.0625 - 0.5


@pytest.mark.parametrize("name", ["llama", "llama-tied", "llama-biases", "qwen3", "gpt2"])
@pytest.mark.parametrize("weights", [None, "fp16", "int8", "int4"])
def test_the_second_hone_maps_what_the_first_wrote(name, weights, tmp_path):
    plain, path = make(name), tmp_path / "folder" / "packed"
    direct = honed.hone(copy.deepcopy(plain), weights=weights)
    first = _hone(plain, path, weights)
    assert "there is none yet" in honed.report(first).note
    second = _hone(plain, path, weights)
    assert not _mapped(first, path) and _mapped(second, path)
    assert honed.report(second).note == f"packed_cache: mapped {path}"
    assert f"mapped {path}" in str(honed.report(second))
    assert torch.equal(_logits(first), _logits(direct))
    assert torch.equal(_logits(second), _logits(direct))
    assert honed.report(second).rows == honed.report(direct).rows
    on_engine(second)


def test_the_grids_of_exact_mode(tmp_path):
    """Weights on a 4-bit grid are cached as the grid."""
    plain = make("llama")
    with torch.no_grad():
        for layer in plain.model.layers:
            layer.mlp.down_proj.weight.copy_(_on_grid(64, 80))
    first, second = (_hone(plain, tmp_path / "packed") for _ in range(2))
    assert second._honed.packs["down", 0].kind == "grid4"
    assert _mapped(second, tmp_path / "packed")
    assert torch.equal(_logits(first), _logits(second))


def test_it_is_a_safetensors_file(tmp_path):
    path = tmp_path / "packed"
    model = _hone(make("llama"), path, "int8")
    with safe_open(path, "np") as file:
        assert file.metadata()["weights"] == "int8"
        stored = file.get_tensor("layers.1.qkv.data")
    assert stored.tobytes() == bytes(_core.memory_of(model._honed.packs["qkv", 1])["data"])
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert start % 64 == 0


def _new_header(change):
    def apply(path):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        parts = json.loads(header["__metadata__"]["parts"])
        change(header, parts)
        header["__metadata__"]["parts"] = json.dumps(parts)
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % 64)
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])

    return apply


def _metadata(**changes):
    return _new_header(lambda header, parts: header["__metadata__"].update(changes))


def _part(**changes):
    return _new_header(lambda header, parts: parts["layers.0.down"].update(changes))


def _offsets(*offsets):
    return _new_header(lambda header, parts: header["layers.0.down.data"].update(data_offsets=offsets))


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-len(data) // 3] ^= 4
    path.write_bytes(data)


def _cut(count):
    return lambda path: path.write_bytes(path.read_bytes()[:count])


DAMAGE = {
    "empty": (_cut(0), "empty"),
    "seven bytes": (_cut(7), "cut short"),
    "half a header": (_cut(300), "cut short"),
    "cut": (_cut(-1), "outside the file|has .* bytes, expected"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + bytes(64)), "has .* bytes, expected"),
    "other file": (lambda path: path.write_bytes(os.urandom(5000)), "cut short|damaged"),
    "long header": (
        lambda path: path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:]),
        "cut short or no safetensors file",
    ),
    "no object": (lambda path: path.write_bytes((2).to_bytes(8, "little") + b"[]"), "header is damaged"),
    "deep header": (
        lambda path: path.write_bytes((99999).to_bytes(8, "little") + b"[" * 99999),
        "header is damaged",
    ),
    "magic": (_metadata(format="pt"), "no file of packed weights"),
    "layout": (_metadata(layout="0"), "layout is '0'"),
    "version": (_metadata(honed="0.0.0"), "honed is '0.0.0'"),
    "group": (_metadata(group="64"), "group is '64'"),
    "bit flip": (_flip, "bytes were changed"),
    "kind": (_part(kind="int4"), "damaged"),
    "other kind of that size": (_part(kind="bf16"), "damaged|changed"),
    "unknown kind": (_part(kind="int3"), "damaged"),
    "group of a part": (_part(group=48), "damaged"),
    "huge group": (_part(group=1 << 70), "damaged"),
    "outputs": (_part(n=32), "another shape"),
    "no outputs": (_part(n=-(1 << 62)), "another shape"),
    "text for a size": (_part(k="80"), "another shape"),
    "place": (_part(at="layers.1.up"), "damaged"),
    "no place": (_part(at=[]), "damaged"),
    "parts": (_new_header(lambda header, parts: parts.clear()), "other parts"),
    "no parts": (_new_header(lambda header, parts: header["__metadata__"].pop("weights")), "weights is None"),
    "negative offset": (_offsets(-64, 1 << 12), "outside the file"),
    "offset past the end": (_offsets(0, 1 << 60), "outside the file"),
    "offsets in reverse": (_offsets(128, 64), "outside the file"),
    "offset of text": (_offsets("0", "64"), "outside the file"),
    "not aligned": (_offsets(8, 8 + 80 * 64 * 4), "multiple of 64"),
    "not of its length": (_offsets(0, 64), "U8"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_refused_and_replaced(case, tmp_path):
    damage, reason = DAMAGE[case]
    plain, path = make("llama"), tmp_path / "packed"
    expected = _logits(_hone(plain, path))
    sound = path.read_bytes()
    damage(path)
    assert path.read_bytes() != sound
    model = _hone(plain, path)
    assert not _mapped(model, path)
    assert re.search(reason, honed.report(model).note), honed.report(model).note
    assert torch.equal(_logits(model), expected)
    again = _hone(plain, path)
    assert _mapped(again, path) and torch.equal(_logits(again), expected)
    assert os.listdir(tmp_path) == ["packed"]


def test_another_mode_replaces_the_file(tmp_path):
    plain, path = make("llama"), tmp_path / "packed"
    _hone(plain, path, "int8")
    four = _hone(plain, path, "int4")
    assert "weights is 'int8', expected 'int4'" in honed.report(four).note
    assert _mapped(_hone(plain, path, "int4"), path)


def _one_ulp(model):
    """The smallest edit of the value that is least likely to be looked at."""
    weight = model.model.layers[1].mlp.up_proj.weight.data.view(-1)
    weight.view(torch.int32)[1234] ^= 1


def _norm(model):
    model.model.norm.weight.data[0] += 1


@pytest.mark.parametrize("edit", [_one_ulp, _norm])
def test_other_weights_are_seen(edit, tmp_path):
    plain, path = make("llama"), tmp_path / "packed"
    _hone(plain, path)
    edit(plain)
    model = _hone(plain, path)
    assert "packed from other weights" in honed.report(model).note
    close(_logits(model), _logits(plain))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_family_has_a_file_of_its_own(name, tmp_path):
    path = tmp_path / "packed"
    _hone(make("llama", hidden_size=32), path)
    assert "other" in honed.report(_hone(make(name), path)).note
    assert _mapped(_hone(make(name), path), path)


def test_weights_changed_after_the_map_are_packed_and_the_file_is_left(tmp_path):
    plain, path = make("llama"), tmp_path / "packed"
    _hone(plain, path)
    sound = path.read_bytes()
    model = _hone(plain, path)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(2)
    close(_logits(model), _logits(honed.unhone(copy.deepcopy(model))))
    assert path.read_bytes() == sound


def test_a_mapped_model_outlives_its_file(tmp_path):
    plain, path = make("llama"), tmp_path / "packed"
    _hone(plain, path)
    model = _hone(plain, path)
    expected = _logits(model)
    _hone(plain, path, "int4")
    path.unlink()
    assert torch.equal(_logits(model), expected)


@pytest.mark.parametrize("where", ["folder", "file/below"])
def test_a_file_that_cannot_be_written_is_a_warning(where, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    plain = make("llama")
    with pytest.warns(UserWarning, match="cannot be written"):
        model = _hone(plain, tmp_path / where)
    assert "could not write" in honed.report(model).note
    close(_logits(model), _logits(plain))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_copies_map_the_same_file(tmp_path):
    path = tmp_path / "packed"
    model = _hone(make("llama"), path)
    other = copy.deepcopy(model)
    assert torch.equal(_logits(other), _logits(model))
    assert _mapped(other, path)


def test_tied_layers_are_packed_once(tmp_path):
    plain, path = make("llama"), tmp_path / "packed"
    for name, p in plain.model.layers[0].named_parameters():
        owner, _, last = name.rpartition(".")
        setattr(plain.model.layers[1].get_submodule(owner), last, p)
    fast, first, second = honed.hone(copy.deepcopy(plain)), _hone(plain, path), _hone(plain, path)
    for model in (fast, first, second):
        packs = model._honed.packs
        assert all(packs[key, 0] is packs[key, 1] for key in ("qkv", "attention_out", "up", "down"))
        assert len(set(packs.values())) == 5
        assert honed.report(model).bytes == model._honed.engine.nbytes
        close(_logits(model), _logits(plain))
    assert path.stat().st_size < 1.2 * fast._honed.engine.nbytes
    with torch.no_grad():
        second.model.layers[1].mlp.down_proj.weight.mul_(2)
    close(_logits(second), _logits(honed.unhone(copy.deepcopy(second))))
    assert second._honed.packs["down", 0] is second._honed.packs["down", 1]


def test_a_head_tied_to_the_embedding_is_packed_once():
    """The lookup reads rows of the parameter itself; only the head is packed."""
    fast = honed.hone(make("llama-tied"))
    assert fast.lm_head.weight is fast.model.embed_tokens.weight
    rows, width = fast.lm_head.weight.shape
    assert [row.bytes for row in honed.report(fast).rows if row.module == "model.embed_tokens"] == [0]
    assert fast._honed.packs["head", None].nbytes == -(-rows // 32) * 32 * width * 4


# What a weight packs into, by kind. Where this fails, kPackedLayout in csrc/ops/quantize_weight.h goes up.
LAYOUT = {
    "f32": [13863837519681970261, 4936551091294341036],
    "f16": [11293750219193081892, 4936551091294341036],
    "bf16": [3056379019870547110, 4936551091294341036],
    "int8": [13884301001856039396, 563652590991474748, 4936551091294341036],
    "grid4": [16938656977706361990, 4936551091294341036],
}


def test_the_layout_number_stands_for_these_bytes():
    assert _core.packed_layout == 1
    weight = _on_grid(40, 70)
    found = {}
    for kind in ("f32", "f16", "bf16", "int8", "grid4"):
        packed = _core.pack_weight([weight], kind, 32, [weight[:, 0].contiguous()])
        found[kind] = [_core.hash_bytes(memory) for memory in _core.memory_of(packed).values()]
    assert found == LAYOUT


def test_the_hash_reads_every_byte():
    data = torch.zeros(200_003, dtype=torch.uint8)
    seen = {_core.hash_bytes(data)}
    places = [*range(0, len(data), 977), *range(130), *range(len(data) - 130, len(data))]
    for at in places:
        data[at] = 128
        seen.add(_core.hash_bytes(data))
        data[at] = 0
    assert len(seen) == 1 + len(set(places))
    assert len({_core.hash_bytes(data[:size]) for size in range(300)}) == 300
    threads = honed.get_num_threads()
    try:
        honed.set_num_threads(1)
        assert _core.hash_bytes(data) in seen
    finally:
        honed.set_num_threads(threads)


def _pack_in_child():
    torch.set_num_threads(1)
    packed = _core.pack_weight([torch.ones(40, 64)], "int8")
    os._exit(0 if packed.nbytes else 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_another_thread_packs():
    """The child packs. A lock around the allocation is held too briefly for this to hit it surely."""
    stop, weight = threading.Event(), torch.randn(64, 64)

    def pack():
        while not stop.is_set():
            _core.pack_weight([weight], "f32")

    thread = threading.Thread(target=pack)
    thread.start()
    try:
        for _ in range(30):
            child = multiprocessing.get_context("fork").Process(target=_pack_in_child)
            child.start()
            child.join(20)
            hung = child.is_alive()
            if hung:
                child.kill()
            assert not hung and child.exitcode == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_a_model_is_being_refreshed():
    model = honed.hone(make("llama"))
    expected = _logits(model)
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with model._honed._lock:
            held.set()
            go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def run():
        torch.set_num_threads(1)
        os._exit(0 if torch.equal(_logits(model), expected) else 1)

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(20)
    hung = child.is_alive()
    if hung:
        child.kill()
    go_on.set()
    thread.join()
    assert not hung and child.exitcode == 0


def test_the_names_in_the_file():
    binding = honed.hone(make("gpt2"))._honed.binding
    names = packed_file.shapes_of(binding)
    assert names["layers.1.up"] == {"gated": False, "n": 256, "k": 64, "bias": True}
    assert len(names) == 9

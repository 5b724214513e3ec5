"""Parameters moved to a file: out of memory, and still the user's in every way."""

import copy
import gc
import io
import mmap
import os
import pickle
import tempfile
from collections import namedtuple

import pytest
import torch
from tests.hf.conftest import close, make, on_engine, prompt
from transformers import AutoModelForCausalLM

import honed
from honed.hf import originals as module
from honed.hf.originals import _Maps, _own_pages

SIZES = {"hidden_size": 256, "intermediate_size": 320}  # 256 KB a matrix: worth a move


def _make(name="llama-tied", **changes):
    return make(name, **(changes or ({"n_embd": 256} if name == "gpt2" else SIZES)))


def _logits(model):
    with torch.no_grad():
        return model(prompt()).logits


def _moved(model):
    """The parameters of which no byte is the process's own memory."""
    maps = _Maps()
    return {name for name, p in model.named_parameters() if maps.clean(p)}


def _large(model):
    return {name for name, p in model.named_parameters() if p.nbytes >= 64 << 10}


def _same(model, state):
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        assert value.dtype == state[name].dtype and torch.equal(value, state[name])


def _follows(fast):
    close(_logits(fast), _logits(honed.unhone(copy.deepcopy(fast))))
    assert not honed.report(fast).fallbacks


@pytest.mark.parametrize("weights", [None, "bf16", "int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen3", "gpt2"])
def test_the_values_stay(name, weights):
    plain = _make(name)
    state, expected = copy.deepcopy(plain.state_dict()), _logits(plain)
    parameters = list(plain.parameters())
    ordinary = honed.hone(copy.deepcopy(plain), weights=weights)
    fast = honed.hone(plain, weights=weights, free_originals=True)
    assert torch.equal(_logits(fast), _logits(ordinary))
    assert all(now is before for now, before in zip(fast.parameters(), parameters, strict=True))
    assert _moved(fast) == _large(fast) != set()
    _same(fast, state)
    tokens = [m.generate(prompt(), max_new_tokens=6, do_sample=False) for m in (fast, ordinary)]
    assert torch.equal(*tokens)
    on_engine(fast)
    assert torch.equal(_logits(honed.unhone(fast)), expected)
    assert _moved(fast) == _large(fast)


def test_an_unchanged_model_is_packed_once_and_not_read_again():
    fast = honed.hone(_make(), free_originals=True)
    packs = dict(fast._honed.packs)
    _logits(fast)
    assert all(fast._honed.packs[key] is packed for key, packed in packs.items())
    assert not fast._honed._watch.edited()
    named = dict(fast.named_parameters())
    assert fast._honed._watch.addresses == {
        named[name].untyped_storage().data_ptr() for name in _large(fast) if name in named
    }


@pytest.mark.parametrize(
    "how", ["inplace", "data", "one value", "optimizer", "load_state_dict", "swap", "to"]
)
def test_edits_are_seen_and_moved_out_again(how):
    fast = honed.hone(_make(), free_originals=True)
    before, weight = _logits(fast), fast.model.layers[1].mlp.down_proj.weight
    if how == "inplace":
        with torch.no_grad():
            weight.mul_(2)
    elif how == "data":
        weight.data.mul_(2)
    elif how == "one value":  # samples would miss it
        weight.data[77, 201] += 100
    elif how == "optimizer":
        fast.train()
        fast(prompt(), labels=prompt()).loss.backward()
        torch.optim.SGD(fast.parameters(), lr=1.0).step()
        fast.eval().zero_grad()
        fast._honed.fallbacks.clear()
    elif how == "load_state_dict":
        fast.load_state_dict({name: value * 1.5 for name, value in fast.state_dict().items()})
    elif how == "swap":
        fast.model.layers[1].mlp.down_proj.weight = torch.nn.Parameter(weight.detach() * 2)
    else:
        fast.to(torch.bfloat16).to(torch.float32)
        fast.model.layers[0].mlp.down_proj.weight.data.mul_(2)
    assert not torch.equal(_logits(fast), before)
    assert _moved(fast) == _large(fast)
    _follows(fast)
    packs = dict(fast._honed.packs)
    _logits(fast)
    assert all(fast._honed.packs[key] is packed for key, packed in packs.items())


def test_only_what_changed_is_moved_again():
    fast = honed.hone(_make(), free_originals=True)
    places = {name: p.data_ptr() for name, p in fast.named_parameters()}
    fast.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1
    _logits(fast)
    moved = {name for name, p in fast.named_parameters() if p.data_ptr() != places[name]}
    assert moved == {"model.layers.0.mlp.up_proj.weight"}


def test_copies_pickles_and_files(tmp_path):
    fast = honed.hone(_make(), weights="int8", free_originals=True)
    expected, state = _logits(fast), copy.deepcopy(fast.state_dict())
    stream = io.BytesIO()
    torch.save(fast, stream)
    stream.seek(0)
    for other in (
        copy.deepcopy(fast),
        pickle.loads(pickle.dumps(fast)),
        torch.load(stream, weights_only=False),
    ):
        _same(other, state)
        assert torch.equal(_logits(other), expected)
        assert _moved(other) == _large(other)
        assert other.lm_head.weight is other.model.embed_tokens.weight
        other.lm_head.weight.data.zero_()
        assert not _logits(other).any()
    _same(fast, state)
    fast.save_pretrained(tmp_path)
    _same(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32), state)


def test_training_goes_on_as_without():
    losses = []
    for free in (False, True):
        model = honed.hone(_make(), free_originals=free)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        _logits(model)
        model.train()
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(prompt(), labels=prompt()).loss
            loss.backward()
            optimizer.step()
        losses.append((loss.item(), _logits(model.eval())))
    assert losses[0][0] == losses[1][0] and torch.equal(losses[0][1], losses[1][1])


@pytest.mark.parametrize("dtype", ["auto", torch.float32])
def test_a_model_read_from_files(dtype, tmp_path):
    """Parameters that lie mapped on the model's file stay there, and no edit reaches the file."""
    _make().half().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    sound = file.read_bytes()
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype).eval()
    state = copy.deepcopy(model.state_dict())
    places = [p.data_ptr() for p in model.parameters()]
    mapped = _moved(model)
    fast = honed.hone(model, weights="int4", free_originals=True)
    stayed = [p.data_ptr() for p in fast.parameters()] == places
    assert stayed == bool(mapped)
    assert _moved(fast) >= _large(fast)
    _same(fast, state)
    for p in fast.parameters():
        p.data.add_(1)
    _logits(fast)
    fast.lm_head.weight.data.add_(1)
    assert file.read_bytes() == sound
    assert _moved(fast) >= _large(fast) - {"model.embed_tokens.weight"}


def test_with_a_packed_cache(tmp_path):
    path = tmp_path / "packed"
    plain = _make()
    expected = _logits(honed.hone(copy.deepcopy(plain), weights="int4"))
    for note in ("there is none yet", f"mapped {path}"):
        fast = honed.hone(copy.deepcopy(plain), weights="int4", packed_cache=path, free_originals=True)
        assert note in honed.report(fast).note
        assert torch.equal(_logits(fast), expected)
        assert _moved(fast) == _large(fast)


def test_parameters_on_one_storage_stay_on_one():
    plain = _make("llama")
    mlp = plain.model.layers[0].mlp
    both = torch.cat([mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach().flip(0)])
    mlp.gate_proj.weight.data, mlp.up_proj.weight.data = both[:320], both[320:]
    mlp.down_proj.weight.data = mlp.down_proj.weight.detach().t().contiguous().t()
    del both
    state, expected = copy.deepcopy(plain.state_dict()), _logits(plain)
    fast = honed.hone(plain, free_originals=True)
    _same(fast, state)
    assert (
        mlp.gate_proj.weight.untyped_storage().data_ptr() == mlp.up_proj.weight.untyped_storage().data_ptr()
    )
    assert mlp.down_proj.weight.stride() == (1, 256)
    assert _moved(fast) == _large(fast)
    close(_logits(fast), expected)


def test_shared_memory_stays_shared():
    plain = _make().share_memory()
    fast = honed.hone(plain, free_originals=True)
    assert all(p.is_shared() for p in fast.parameters())
    _follows(fast)


def test_training_mode_moves_nothing():
    assert not _moved(honed.hone(_make(), train=True, free_originals=True))


def test_a_file_that_cannot_be_had_is_a_warning(monkeypatch):
    plain = _make()
    expected = _logits(plain)
    monkeypatch.setattr(module, "_disk_folder", lambda: None)
    with pytest.warns(UserWarning, match="stay in memory"):
        fast = honed.hone(plain, free_originals=True)
    assert not _moved(fast)
    close(_logits(fast), expected)
    with pytest.warns(UserWarning, match="stay in memory"):
        fast.lm_head.weight.data.zero_()
        assert not _logits(fast).any()


def test_a_full_disk_is_a_warning(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    plain = _make()
    state = copy.deepcopy(plain.state_dict())
    with pytest.warns(UserWarning, match="No space left"):
        fast = honed.hone(plain, free_originals=True)
    _same(fast, state)
    _follows(fast)


def test_folders_in_memory_are_not_taken(monkeypatch):
    usage = namedtuple("Usage", "folder kind")
    kinds = [usage("/proc", "proc"), usage(tempfile.gettempdir(), module._file_system(tempfile.gettempdir()))]
    for folder, kind in kinds:
        assert module._file_system(folder) == kind
    monkeypatch.setattr(module, "_file_system", lambda folder: "tmpfs")
    assert module._disk_folder() is None


def test_without_pagemap_samples_are_compared(monkeypatch):
    def no(*_):
        raise OSError("not here")

    plain = _make()
    monkeypatch.setattr(module, "_own_pages", no)
    fast = honed.hone(plain, free_originals=True)
    assert not fast._honed._watch.addresses
    before = _logits(fast)
    fast.model.layers[0].mlp.up_proj.weight.data.mul_(2)
    assert not torch.equal(_logits(fast), before)


def test_the_file_goes_with_the_model():
    def maps():
        gc.collect()
        with open("/proc/self/maps") as file:
            return sum("(deleted)" in line for line in file), len(os.listdir("/proc/self/fd"))

    before = maps()
    fast = honed.hone(_make(), free_originals=True)
    assert maps() > before
    del fast
    assert maps() == before


def _memory(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(field))


def test_memory_is_given_back():
    """What stays of the process's own is the packed weights; decoding pages only embedding rows back in."""
    plain = _make("llama", hidden_size=1024, intermediate_size=3072, num_attention_heads=8, vocab_size=4096)
    size = sum(p.nbytes for p in plain.parameters())
    honed.hone(copy.deepcopy(plain), weights="int4", free_originals=True).generate(
        prompt(1), max_new_tokens=2
    )
    gc.collect()
    before = _memory("RssAnon"), _memory("RssFile")
    fast = honed.hone(plain, weights="int4", free_originals=True)
    packed = honed.report(fast).bytes
    fast.generate(prompt(1), max_new_tokens=2)
    grown = _memory("RssAnon") - before[0] - packed + size
    read = _memory("RssFile") - before[1]
    assert packed < 0.2 * size
    assert read < 0.1 * size, f"{read / 1e6:.0f} MB of the file were read back"
    assert grown < 0.15 * size, f"{grown / 1e6:.0f} MB more than the packed weights of {packed / 1e6:.0f} MB"


def test_own_pages_are_those_that_were_written():
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 20))
        file.flush()
        pages = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        view = torch.frombuffer(pages, dtype=torch.uint8)
        at = view.data_ptr()
        assert not _own_pages(at, at + (1 << 20))
        assert view.sum() == 0 and not _own_pages(at, at + (1 << 20))
        view[123456] = 1
        page = at + 123456 // mmap.PAGESIZE * mmap.PAGESIZE
        assert _own_pages(at, at + (1 << 20)) and _own_pages(page, page + 1)
        assert not _own_pages(at, page) and not _own_pages(page + mmap.PAGESIZE, at + (1 << 20))

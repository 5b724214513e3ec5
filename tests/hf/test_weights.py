"""The model stays the user's: state, copies, files and changed weights; no stale packed copy is ever used."""

import copy
import pickle

import pytest
import torch
from tests.hf.conftest import close, make, on_engine, pair, prompt
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import honed
from honed._lib import _core
from honed.hf.families import storage_for


def _logits(model):
    with torch.no_grad():
        return model(prompt()).logits


def _follows(fast):
    """The honed model computes what its present weights say, on the engine."""
    close(_logits(fast), _logits(honed.unhone(copy.deepcopy(fast))))
    assert not honed.report(fast).fallbacks


def test_class_and_signature():
    plain, fast = pair("llama")
    assert type(fast).__name__ == "LlamaForCausalLM"
    assert isinstance(fast, LlamaForCausalLM)
    import inspect

    assert inspect.signature(fast.forward) == inspect.signature(plain.forward)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(fast.state_dict()[name], value)


@pytest.mark.parametrize("weights", [None, "bf16", "fp16", "int8", "int4"])
@pytest.mark.parametrize("name", ["llama-tied", "gpt2"])
def test_unhone_is_bit_for_bit(name, weights):
    plain = make(name)
    before = _logits(plain)
    model = honed.hone(plain, weights=weights)
    _logits(model)
    back = honed.unhone(model)
    assert back is plain
    assert type(back) is type(make(name))
    assert "_honed" not in back.__dict__
    assert torch.equal(_logits(back), before)


@pytest.mark.parametrize("weights", ["bf16", "fp16", "int8", "int4"])
def test_packed_modes_compute_with_what_they_packed(weights):
    """A torch model that has the packed matrices gives the same logits, but for the cache's half floats."""
    plain = make("llama")
    fast = honed.hone(copy.deepcopy(plain), weights=weights)
    handle = fast._honed
    with torch.no_grad():
        for part in handle.binding.parts:
            if not part.packed:
                continue
            packed = handle.packs[part.key, part.layer].unpack()
            for module, matrix in zip(
                part.modules, packed.split([m.out_features for m in part.modules]), strict=True
            ):
                owner = plain.get_submodule(part.names[part.modules.index(module)])
                assert owner.weight.shape == matrix.shape
                owner.weight.copy_(matrix)
    got, expected = _logits(fast), _logits(plain)
    # The integer kernels also round each row of their input to 8 bits: 1/254 of its largest value a product.
    allowed = 0.05 if weights.startswith("int") else 0.005
    assert (got - expected).norm() < allowed * expected.norm()
    assert (got - _logits(make("llama"))).abs().max() > 0
    on_engine(fast)


def test_honing_again_changes_the_mode():
    model = honed.hone(make("llama"), weights="int4")
    four = honed.report(model).bytes
    model = honed.hone(model)
    assert honed.report(model).mode == "exact"
    assert honed.report(model).bytes > 2 * four
    close(_logits(model), _logits(make("llama")))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="int3"):
        honed.hone(make("llama"), weights="int3")
    with pytest.raises(TypeError, match="str"):
        honed.hone("llama")


def test_exact_mode_takes_16_bits_only_where_they_hold_every_value():
    matrix = torch.randn(40, 30)
    assert _core.pack_weight([matrix], storage_for("up", None)).kind == "f32"
    assert _core.pack_weight([matrix.bfloat16().float()], storage_for("up", None)).kind == "bf16"
    assert _core.pack_weight([matrix.half().float()], storage_for("up", None)).kind == "f16"
    assert _core.pack_weight([matrix.bfloat16()], storage_for("up", None)).kind == "bf16"
    assert _core.pack_weight([matrix.half().float(), matrix], storage_for("up", None)).kind == "f32"
    late = matrix.bfloat16().float()
    late[39, 29] += 2.0**-20
    assert _core.pack_weight([late], storage_for("up", None)).kind == "f32"
    assert _core.pack_weight([torch.full((4, 4), 70000.0)], storage_for("up", None)).kind == "f32"


def test_exact_mode_halves_what_it_can():
    plain = make("llama")
    full = honed.report(honed.hone(copy.deepcopy(plain))).bytes
    rounded = plain.bfloat16().float()
    fast = honed.hone(copy.deepcopy(rounded))
    assert {row.dtype for row in honed.report(fast).rows if row.bytes} == {"bf16"}
    assert honed.report(fast).bytes < 0.6 * full
    close(_logits(fast), _logits(rounded))


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2"])
def test_copies(name):
    _, fast = pair(name)
    expected = _logits(fast)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(other) is type(fast)
        assert torch.equal(_logits(other), expected)
        on_engine(other)
        with torch.no_grad():
            next(other.parameters()).mul_(2.0)
        _follows(other)
    assert torch.equal(_logits(fast), expected)


def test_torch_save(tmp_path):
    _, fast = pair("llama")
    torch.save(fast, tmp_path / "model.pt")
    other = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(_logits(other), _logits(fast))


@pytest.mark.parametrize("name", ["llama-tied", "qwen3", "gpt2"])
def test_save_pretrained(name, tmp_path):
    plain, fast = pair(name, dtype=torch.float32)
    fast.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(loaded) is type(plain)
    assert torch.equal(_logits(loaded.eval()), _logits(plain))


def _in_place(model):
    with torch.no_grad():
        list(model.parameters())[4].add_(0.1)


def _data(model):
    for parameter in list(model.parameters())[3:6]:
        parameter.data.mul_(1.5)


def _data_replaced(model):
    parameter = list(model.parameters())[4]
    parameter.data = parameter.data * 1.5


def _embedding(model):
    model.get_input_embeddings().weight.data.mul_(0.5)


def _loaded(model):
    model.load_state_dict({name: value * 1.1 for name, value in model.state_dict().items()})


def _replaced(model):
    norm = next(
        module for module in model.modules() if type(module).__name__.endswith(("RMSNorm", "LayerNorm"))
    )
    norm.weight = torch.nn.Parameter(norm.weight.detach() * 2)


def _optimizer(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    model(prompt(), labels=prompt()).loss.backward()
    optimizer.step()
    model.zero_grad()
    model._honed.fallbacks.clear()


def _to(model):
    model.to(torch.bfloat16).to(torch.float32)


EDITS = (_in_place, _data, _data_replaced, _embedding, _loaded, _replaced, _optimizer, _to)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@pytest.mark.parametrize("name", ["llama-tied", "qwen3", "gpt2"])
def test_changed_weights_are_noticed(name, edit):
    _, fast = pair(name)
    before = _logits(fast)
    edit(fast)
    assert not torch.equal(_logits(fast), before)
    _follows(fast)
    tokens = fast.generate(prompt(), max_new_tokens=8, do_sample=False)
    reference = honed.unhone(copy.deepcopy(fast))
    assert torch.equal(tokens, reference.generate(prompt(), max_new_tokens=8, do_sample=False))


def test_only_what_changed_is_packed_again():
    _, fast = pair("llama")
    before = dict(fast._honed.packs)
    with torch.no_grad():
        fast.model.layers[1].mlp.down_proj.weight.mul_(2)
    _logits(fast)
    after = fast._honed.packs
    assert {key for key in after if after[key] is not before[key]} == {("down", 1)}


def test_edits_are_noticed_between_decode_steps():
    _, fast = pair("llama")
    with torch.no_grad():
        step = prompt(1, 1)
        for edited in (False, True):
            cache = fast(prompt(1)).past_key_values
            if edited:
                fast.lm_head.weight.zero_()
            logits = fast(step, past_key_values=cache).logits
            assert bool((logits == 0).all()) == edited


def _assigned(model):
    model.load_state_dict({name: value * 2 for name, value in model.state_dict().items()}, assign=True)


def _new_head(model):
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 2)


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
@pytest.mark.parametrize("edit", [_assigned, _new_head], ids=lambda edit: edit.__name__)
def test_replaced_parameters_are_noticed_between_decode_steps(name, edit):
    plain, fast = pair(name)
    with torch.no_grad():
        ours, theirs = (model(prompt(1)).past_key_values for model in (fast, plain))
        for model in (fast, plain):
            edit(model)
        step = prompt(1, 1)
        close(fast(step, past_key_values=ours).logits, plain(step, past_key_values=theirs).logits)
    on_engine(fast)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_changed_settings_are_noticed(name):
    plain, fast = pair(name)
    for model in (plain, fast):
        for module in model.modules():
            for setting in ("eps", "variance_epsilon", "scaling"):
                if setting in module.__dict__:
                    setattr(module, setting, getattr(module, setting) * 3)
    close(_logits(fast), _logits(plain))
    assert (_logits(fast) - _logits(make(name))).abs().max() > 0.01
    on_engine(fast)


def test_a_replaced_forward_is_noticed():
    _, fast = pair("llama")
    before = _logits(fast)
    mlp = fast.model.layers[0].mlp
    mlp.forward = lambda x: torch.zeros_like(x)
    assert not torch.allclose(_logits(fast), before)
    assert honed.report(fast).fallbacks == {"model.layers.0.mlp.forward was replaced": 1}
    del mlp.forward
    assert torch.equal(_logits(fast), before)


def test_measuring_leaves_the_model_and_the_random_numbers_alone():
    quiet = honed.hone(make("gpt2"), weights="int4")
    model = make("gpt2").train()
    model.transformer.ln_f.eval()
    before = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    honed.hone(model, weights="int4")
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(_logits(model.eval()), _logits(quiet))


def test_resized_embeddings():
    _, fast = pair("llama")
    fast.resize_token_embeddings(300)
    assert _logits(fast).shape[-1] == 300
    on_engine(fast)


def test_removed_layers():
    plain, fast = pair("llama")
    for model in (plain, fast):
        model.model.layers = model.model.layers[:1]
        model.config.num_hidden_layers = 1
    close(_logits(fast), _logits(plain))
    on_engine(fast)


def test_trains_by_torch_and_is_noticed():
    plain, fast = pair("llama")
    for model in (plain, fast):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        model.train()
        for _ in range(3):
            loss = model(prompt(), labels=prompt()).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
    assert torch.equal(fast.lm_head.weight, plain.lm_head.weight)
    close(_logits(fast), _logits(plain))
    assert honed.report(fast).fallbacks == {"the model is in training mode": 3}


def test_peft():
    peft = pytest.importorskip("peft")
    plain, fast = pair("llama")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    wrapped = []
    for model in (plain, fast):
        torch.manual_seed(5)
        wrapped.append(peft.get_peft_model(model, config).eval())
    close(_logits(wrapped[1]), _logits(wrapped[0]))
    tokens = [m.generate(input_ids=prompt(), max_new_tokens=8, do_sample=False) for m in wrapped]
    assert torch.equal(*tokens)
    assert all("is a peft Linear" in reason for reason in honed.report(fast).fallbacks)
    assert honed.report(fast).fallbacks
    wrapped[1](prompt(), labels=prompt()).loss.backward()
    assert any("lora" in name and p.grad is not None for name, p in wrapped[1].named_parameters())
    merged = wrapped[1].merge_and_unload()
    assert merged is fast
    fast._honed.fallbacks.clear()
    close(_logits(merged), _logits(wrapped[0]))
    on_engine(merged)

"""hone() by layers: models that have no engine, and train=True."""

import copy

import pytest
import torch
from tests.hf.conftest import close, make, prompt
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

import honed
from honed.nn import Linear


def mlp():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 3)
    )


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.2,
    )
    return BertModel(config).eval()


def t5():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=99, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return T5ForConditionalGeneration(config).eval()


def linears(model):
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)]


def test_an_mlp_trains_as_torchs_does():
    plain = mlp()
    fast = honed.hone(copy.deepcopy(plain))
    assert [type(module) for module in linears(fast)] == [Linear, Linear]
    generator = torch.Generator().manual_seed(1)
    data = [
        (torch.randn(16, 12, generator=generator), torch.randint(3, (16,), generator=generator))
        for _ in range(8)
    ]
    curves = []
    for model in (plain, fast):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for x, y in data:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                losses += [loss.item(), torch.nn.functional.cross_entropy(model(x), y).item()]
        curves.append(losses)
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        close(one.detach(), other.detach())


@pytest.mark.parametrize("made", [bert, t5])
def test_encoders(made):
    plain = made()
    fast = honed.hone(copy.deepcopy(plain))
    ids = torch.randint(3, 99, (2, 9), generator=torch.Generator().manual_seed(2))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["attention_mask"][0, 6:] = 0
    if made is t5:
        inputs["decoder_input_ids"] = ids[:, :5]
    with torch.no_grad():
        close(fast(**inputs)[0], plain(**inputs)[0])
    for model in (plain, fast):
        model(**inputs)[0].square().mean().backward()
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None and other.grad.abs().max() > 1e-6:
            close(one.grad, other.grad)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    found = honed.report(fast)
    assert "by layers" in str(found) and "is not known" in found.rows[0].reason


def test_t5_generates_the_same():
    plain = t5()
    fast = honed.hone(copy.deepcopy(plain))
    ids = torch.randint(3, 99, (2, 9), generator=torch.Generator().manual_seed(2))
    options = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(fast.generate(ids, **options), plain.generate(ids, **options))


def test_report_groups_layers():
    model = honed.hone(bert(), weights="int8")
    with torch.no_grad():
        model(prompt().clamp(max=98))
    found = honed.report(model)
    rows = {row.module: row for row in found.rows}
    query = rows["encoder.layer.*.attention.self.query"]
    assert (query.count, query.replaced_by, query.reason) == (2, "honed.nn.Linear", "")
    assert "packed int8" in query.kernel and query.bytes > 0
    norm = rows["encoder.layer.*.attention.output.LayerNorm"]
    assert (norm.count, norm.replaced_by, norm.bytes) == (2, "honed.nn.LayerNorm", 0)
    assert norm.kernel.endswith(" layer_norm") and norm.dtype == "float32"
    assert rows["embeddings.word_embeddings"].replaced_by == "honed.nn.Embedding"
    assert found.mode == "int8, by layers"
    assert found.rows[0].reason.startswith("model family 'bert' is not known")


def test_unhone():
    model = honed.hone(bert(), weights="int4")
    with torch.no_grad():
        rounded = model(prompt().clamp(max=98))[0]
        assert honed.unhone(model) is model
        assert {type(module) for module in linears(model)} == {torch.nn.Linear}
        assert not any("honed" in name or name == "_packed" for m in model.modules() for name in m.__dict__)
        plain = model(prompt().clamp(max=98))[0]
        assert torch.equal(plain, bert()(prompt().clamp(max=98))[0])
        assert not torch.equal(plain, rounded)
        close(honed.hone(model)(prompt().clamp(max=98))[0], plain)  # no int4 is left behind
    assert honed.report(honed.unhone(model)).rows[0].reason == "not honed"


def test_copies_and_state():
    model = honed.hone(mlp(), weights="fp16")
    x = torch.randn(2, 12)
    with torch.no_grad():
        before = model(x)
        copied = copy.deepcopy(model)
        assert torch.equal(copied(x), before)
        mlp().load_state_dict(model.state_dict())
        model.load_state_dict({name: value * 0 for name, value in model.state_dict().items()})
        assert torch.equal(model(x), torch.zeros(2, 3))
        assert torch.equal(copied(x), before)
    assert honed.report(copied).mode == "fp16, by layers"


def test_what_is_left_alone():
    class Louder(torch.nn.Linear):
        pass

    class Rounded(torch.nn.Parameter):
        pass

    model = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ("patched", "rounded", "plain")})
    model["louder"] = Louder(4, 4)
    model["patched"].forward = lambda x: x
    model["rounded"].weight = Rounded(torch.zeros(4, 4))
    model["attention"] = torch.nn.MultiheadAttention(4, 2)
    honed.hone(model)
    assert {name for name, module in model.named_modules() if type(module) is Linear} == {"plain"}
    reasons = {row.reason for row in honed.report(model).rows if not row.replaced_by}
    assert {
        "its forward was replaced",
        "its weight is a Rounded",
        "its class is not exactly torch.nn.Linear",
    } <= reasons
    model["late"] = torch.nn.Linear(4, 4)
    assert any(row.reason == "it came after hone" for row in honed.report(model).rows)


def test_a_family_trains_by_layers():
    plain = make("llama")
    fast = honed.hone(copy.deepcopy(plain), train=True)
    assert type(fast).__mro__[2] is type(plain)
    for model in (plain, fast):
        model(prompt(), labels=prompt()).loss.backward()
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        close(one.grad, other.grad)
    with torch.no_grad():
        close(fast(prompt()).logits, plain(prompt()).logits)
    assert "train=True" in honed.report(fast).rows[0].reason
    honed.hone(fast)
    with torch.no_grad():
        close(fast(prompt()).logits, plain(prompt()).logits)
    assert honed.report(fast).calls == 1 and {type(m) for m in linears(fast)} == {torch.nn.Linear}


def test_peft():
    peft = pytest.importorskip("peft")
    plain = make("llama")
    fast = honed.hone(copy.deepcopy(plain), train=True)
    results = []
    for model in (plain, fast):
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        model = peft.get_peft_model(model, config)
        loss = model(prompt(), labels=prompt()).loss
        loss.backward()
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        results.append((loss.detach(), grads, model.merge_and_unload()))
    close(results[1][0], results[0][0])
    for one, other in zip(results[1][1], results[0][1], strict=True):
        close(one, other)
    merged = results[1][2]
    assert type(merged.model.layers[0].self_attn.q_proj) is Linear
    with torch.no_grad():
        close(merged(prompt()).logits, results[0][2](prompt()).logits)


def test_compile():
    model = honed.hone(mlp())
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 12)
    assert torch.allclose(compiled(x), model(x), atol=1e-5)

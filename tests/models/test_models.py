"""honed.models: GPT and Bert give what transformers gives, and the Transformer learns."""

import copy
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

import honed
from honed.models import GPT, Bert, Transformer

transformers.logging.set_verbosity_error()
F = torch.nn.functional


def gpt2(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 3}
    return with_biases(GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2, **changes)))


def bert(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "max_position_embeddings": 32, "hidden_size": 24, "num_hidden_layers": 2}
    config = BertConfig(
        **sizes, num_attention_heads=3, intermediate_size=40, initializer_range=0.2, **changes
    )
    return with_biases(BertModel(config, add_pooling_layer=False))


def with_biases(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def close(got, expected, exact):
    """As near to float64 as transformers' float32 is, twice over."""
    own = (expected.double() - exact).abs().max().item()
    assert (got.double() - exact).abs().max().item() <= 2 * own


def tokens(rows=2, length=9, vocabulary=61):
    return torch.randint(1, vocabulary, (rows, length), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("changes", [{}, {"n_inner": 40}, {"activation_function": "gelu"}])
def test_gpt_is_gpt2(tmp_path, changes):
    theirs = gpt2(**changes)
    theirs.save_pretrained(tmp_path)
    ours = GPT.from_pretrained(tmp_path)
    assert not ours.training
    ids = tokens()
    wide = copy.deepcopy(theirs).double()
    with torch.no_grad():
        close(ours(ids), theirs(ids).logits, wide(ids).logits)
        loss, expected = ours(ids[:, :-1], ids[:, 1:]), theirs(ids, labels=ids).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    written = theirs.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert torch.equal(ours.generate(ids, 6), written)


def test_gpt_of_a_real_folder(folder):
    path = folder("gpt2-random")
    ours, theirs = GPT.from_pretrained(path), GPT2LMHeadModel.from_pretrained(path).eval()
    ids = tokens(1, 21, 1000)
    with torch.no_grad():
        got, expected = ours(ids), theirs(ids).logits
        close(got, expected, theirs.double()(ids).logits)


def test_gpt_has_gpt2s_gradients():
    theirs = gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    ids = tokens()
    ours = GPT(61, longest=32, width=24, heads=3, layers=2)
    ours.load_state_dict(state_of(theirs))
    ours(ids[:, :-1], ids[:, 1:]).backward()
    theirs(ids, labels=ids).loss.backward()
    wide = {name: p.grad for name, p in theirs.named_parameters()}
    for name, theirs_name in {
        "tokens.weight": "transformer.wte.weight",
        "norm.bias": "transformer.ln_f.bias",
        "blocks.1.linear1.bias": "transformer.h.1.mlp.c_fc.bias",
        "blocks.0.self_attn.in_proj_bias": "transformer.h.0.attn.c_attn.bias",
    }.items():
        expected = wide[theirs_name]
        error = (ours.get_parameter(name).grad - expected).abs().max() / expected.abs().max()
        assert error < 1e-5, name


def state_of(theirs):
    """GPT's state of a GPT-2, by way of a folder."""
    import tempfile

    with tempfile.TemporaryDirectory() as path:
        theirs.save_pretrained(path)
        return GPT.from_pretrained(path).state_dict()


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-5}])
def test_bert_is_bert(tmp_path, changes):
    theirs = bert(**changes)
    theirs.save_pretrained(tmp_path)
    ours = Bert.from_pretrained(tmp_path)
    ids = tokens()
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    kinds = (torch.arange(9) > 3).long().expand(2, 9)
    wide = copy.deepcopy(theirs).double()
    for given in ((ids,), (ids, mask), (ids, mask, kinds)):
        with torch.no_grad():
            got, expected, exact = ours(*given), theirs(*given)[0], wide(*given)[0]
        seen = mask.bool() if len(given) > 1 else torch.ones_like(mask).bool()
        close(got[seen], expected[seen], exact[seen])


def test_bert_of_a_real_folder(folder):
    path = folder("minilm")
    ours, theirs = Bert.from_pretrained(path), BertModel.from_pretrained(path).eval()
    ids = tokens(2, 21, 5000)
    mask = torch.ones_like(ids)
    mask[0, 13:] = 0
    with torch.no_grad():
        got, expected = ours(ids, mask), theirs(ids, mask)[0]
        exact = theirs.double()(ids, mask)[0]
    close(got[mask.bool()], expected[mask.bool()], exact[mask.bool()])


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError):
        GPT.from_pretrained(tmp_path)
    gpt2().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 'gpt2', expected 'bert'"):
        Bert.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        GPT.from_pretrained(tmp_path)
    gpt2(scale_attn_by_inverse_layer_idx=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx"):
        GPT.from_pretrained(tmp_path)


def test_gpt_samples_and_stops_at_its_end():
    model = GPT(13, longest=8, width=16, heads=2, layers=1).eval()
    ids = tokens(3, 2, 13)
    torch.manual_seed(1)
    one = model.generate(ids, 6, temperature=1.0)
    torch.manual_seed(1)
    assert torch.equal(model.generate(ids, 6, temperature=1.0), one)
    assert torch.equal(model.generate(ids, 6, temperature=1.0, top_k=1), model.generate(ids, 6))
    with pytest.raises(ValueError, match="GPT: got 9 tokens, expected at most 8"):
        model(tokens(1, 9, 13))


def small(**options):
    torch.manual_seed(0)
    return Transformer(15, 15, d_model=16, heads=2, layers=2, d_ff=32, dropout=0.0, **options)


@pytest.mark.parametrize("norm_first", [True, False])
def test_steps_of_generate_are_the_whole(norm_first):
    model = small(norm_first=norm_first).eval()
    source = tokens(4, 7, 15)
    source[0, 4:] = source[1, 6:] = 0
    written = model.generate(source, start=1, end=2, longest=9)
    target = F.pad(written, (1, 0), value=1)
    with torch.no_grad():
        again = model(source, target[:, :-1]).argmax(-1)
    ended = (written == 2).cumsum(1).roll(1, 1)
    ended[:, 0] = 0
    assert torch.equal(again[ended == 0], written[ended == 0]) and (written[ended > 0] == 0).all()


def test_padding_changes_nothing():
    model = small().eval()
    source, target = tokens(2, 5, 15), tokens(2, 4, 15)
    with torch.no_grad():
        padded = model(F.pad(source, (0, 3)), target)
        assert torch.allclose(padded, model(source, target), atol=1e-5)


def test_attention_weights():
    model = small().eval()
    source, target = tokens(3, 6, 15), tokens(3, 4, 15)
    with torch.no_grad():
        logits, weights = model(source, target, need_weights=True)
        assert torch.allclose(logits, model(source, target), atol=1e-5)
    assert [w.shape for w in weights] == [(3, 2, 4, 6)] * 2
    assert all(torch.allclose(w.sum(-1), torch.ones(3, 2, 4), atol=1e-5) for w in weights)


def test_tied_tables():
    tied = small(tied=True)
    assert tied.source is tied.target and tied.head.weight is tied.source.weight
    with pytest.raises(ValueError, match="tied with 15 and 16 tokens"):
        Transformer(15, 16, tied=True)


def test_dates_are_learnt(monkeypatch, capsys):
    """A short run of the example: the loss falls from that of guessing."""
    path = Path(__file__).resolve().parents[2] / "examples" / "train_transformer.py"
    spec = importlib.util.spec_from_file_location("train_transformer", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    losses = []
    plain = example.cross_entropy

    def kept(*args, **kwargs):
        loss = plain(*args, **kwargs)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(example, "cross_entropy", kept)
    monkeypatch.setattr(sys, "argv", ["train_transformer.py", "--steps", "40"])
    example.main()
    assert "texts of dates never seen are right" in capsys.readouterr().out
    assert len(losses) == 40 and losses[0] > 2.5 and sum(losses[-5:]) / 5 < 0.6 * losses[0]


def test_hone_leaves_them_as_they_are():
    model = small().eval()
    source, target = tokens(2, 5, 15), tokens(2, 4, 15)
    with torch.no_grad():
        before = model(source, target)
        honed.hone(model)
        assert torch.equal(model(source, target), before)
        honed.hone(model, weights="int8")
        assert not torch.equal(model(source, target), before)
        rows = honed.report(model).rows[1:]
        assert torch.equal(honed.unhone(model)(source, target), before)  # still of honed's own layers
    assert {row.replaced_by.split(".")[0] for row in rows} == {"honed"}

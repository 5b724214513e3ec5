"""Text that follows a grammar, in every loop; llguidance says which tokens may follow."""

import json
import re

import pytest
import torch
from tests.hf.conftest import on_engine, pair, prompt

from honed.generation import json_schema, lark, regex

pytest.importorskip("llguidance", reason="needs the package llguidance: pip install honed[grammar]")

SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "integer", "maximum": 99, "minimum": -5}, "kind": {"enum": ["x", "yy"]}},
    "required": ["id", "kind"],
    "additionalProperties": False,
}
PATTERN = r"(ab|c[0-9]{2}){2,5}!"


def texts(model, grammar, tokenizer, ids=None, **options):
    ids = prompt(3, 7) if ids is None else ids
    options = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 2, "eos_token_id": 1, **options}
    out = model.generate(ids, grammar=grammar, **options)[:, ids.shape[1] :]
    for row in out.tolist():
        assert 1 in row, "the text did not end"
        assert set(row[row.index(1) + 1 :]) <= {2}
    return [tokenizer.decode(row[: row.index(1)]) for row in out.tolist()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True, "temperature": 2.0, "top_k": 0},
        {"do_sample": True, "top_k": 3, "repetition_penalty": 1.3},
        {"num_beams": 3},
        {"min_length": 9},
    ],
    ids=str,
)
def test_regex(tokenizer, options):
    _, fast = pair("llama")
    torch.manual_seed(0)
    for text in texts(fast, regex(PATTERN, tokenizer), tokenizer, **options):
        assert re.fullmatch(PATTERN, text), text
    on_engine(fast)


def test_json_schema(tokenizer):
    _, fast = pair("llama")
    torch.manual_seed(0)
    for schema in (SCHEMA, json.dumps(SCHEMA)):
        made = texts(fast, json_schema(schema, tokenizer), tokenizer, prompt(20, 5), do_sample=True)
        for text in made:
            found = json.loads(text)
            assert set(found) == {"id", "kind"} and -5 <= found["id"] <= 99 and found["kind"] in ("x", "yy")
            assert " " not in text
    assert len(set(made)) > 5
    on_engine(fast)


def test_lark(tokenizer):
    _, fast = pair("llama")
    grammar = lark('start: "(" item ("," item){0,2} ")"\nitem: /[a-c]{1,3}/', tokenizer)
    for text in texts(fast, grammar, tokenizer):
        assert re.fullmatch(r"\([a-c]{1,3}(,[a-c]{1,3}){0,2}\)", text)


def test_a_processor_of_any_model(tokenizer):
    plain, fast = pair("llama")
    grammar = regex(PATTERN, tokenizer)
    options = {"max_new_tokens": 20, "do_sample": False}
    expected = plain.generate(prompt(3), logits_processor=[grammar.processor()], **options)
    assert torch.equal(fast.generate(prompt(3), grammar=grammar, **options), expected)
    assert torch.equal(fast.generate(prompt(3), logits_processor=[grammar.processor()], **options), expected)
    on_engine(fast)


def test_with_prefix_allowed_tokens_both_hold(tokenizer):
    _, fast = pair("llama")
    nine = tokenizer.convert_tokens_to_ids("9")
    letters = [t for t in range(259) if t not in [tokenizer.convert_tokens_to_ids(c) for c in "012345678"]]
    out = texts(fast, regex("[0-9]{4}", tokenizer), tokenizer, prefix_allowed_tokens_fn=lambda *_: letters)
    assert nine in letters and out == ["9999"] * 3


def test_one_grammar_serves_many_calls(tokenizer):
    _, fast = pair("llama")
    grammar = regex(PATTERN, tokenizer)
    first = texts(fast, grammar, tokenizer)
    assert texts(fast, grammar, tokenizer) == first
    assert texts(fast, grammar, tokenizer, prompt(3, 7)[:1]) == first[:1]


def test_refusals(tokenizer):
    with pytest.raises(ValueError, match="regex: "):
        regex("(a", tokenizer)
    with pytest.raises(ValueError, match="json_schema: "):
        json_schema({"type": "nothing"}, tokenizer)
    with pytest.raises(ValueError, match="json_schema: "):
        json_schema("no json", tokenizer)
    with pytest.raises(ValueError, match="lark: "):
        lark("start: nowhere", tokenizer)

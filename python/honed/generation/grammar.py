"""Text that follows a JSON schema, a regular expression or a grammar, by the library llguidance.

    grammar = honed.generation.json_schema({"type": "object", ...}, tokenizer)
    model.generate(**inputs, grammar=grammar)
    plain_model.generate(**inputs, logits_processor=[grammar.processor()])  # of transformers, no honed model

The text starts behind the prompt; where it is complete, only the end token may follow.
"""

from __future__ import annotations

import json
import weakref

import numpy as np

_tokenizers = weakref.WeakKeyDictionary()


def json_schema(schema: dict | str, tokenizer, *, whitespace: bool = False, eos_token_id=None) -> Grammar:
    """Text that is JSON and valid by the schema (a dict, or its JSON text).

    ``whitespace`` allows it between the parts. ``eos_token_id``: what ends a text, where that is not the
    tokenizer's own.
    """
    llguidance = _library()
    try:
        text = llguidance.LLMatcher.grammar_from_json_schema(
            schema if isinstance(schema, str) else json.dumps(schema),
            overrides={"whitespace_flexible": bool(whitespace)},
        )
    except ValueError as error:
        raise ValueError(f"json_schema: {error}") from None
    return Grammar(text, tokenizer, eos_token_id, name="json_schema")


def regex(pattern: str, tokenizer, *, eos_token_id=None) -> Grammar:
    """Text that the regular expression (in Rust's syntax, without look-around) matches as a whole."""
    return Grammar(_library().LLMatcher.grammar_from_regex(pattern), tokenizer, eos_token_id, name="regex")


def lark(grammar: str, tokenizer, *, eos_token_id=None) -> Grammar:
    """Text of a context-free grammar in the notation of Lark, as llguidance takes it."""
    return Grammar(_library().LLMatcher.grammar_from_lark(grammar), tokenizer, eos_token_id, name="lark")


class Grammar:
    """What ``model.generate(grammar=...)`` takes. Raises ValueError for a grammar that cannot be read."""

    def __init__(self, grammar: str, tokenizer, eos_token_id=None, *, name: str = "grammar"):
        llguidance = _library()
        self._tokenizer = _wrapped(tokenizer, eos_token_id)
        wrong, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, self._tokenizer)
        if wrong:
            raise ValueError(f"{name}: {messages[0]}")
        self._start = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)

    def session(self) -> Session:
        """The masks of one ``generate``."""
        return Session(self._start, self._tokenizer.eos_tokens)

    def processor(self):
        """A LogitsProcessor for one ``generate``, of any model."""
        from honed.generation.processors import Allowed

        return Allowed(self)

    def __deepcopy__(self, memo):
        return self  # it never changes; generate() copies its configuration


class Session:
    """Which tokens may follow. Rows may be reordered and shortened between the calls."""

    def __init__(self, start, eos: list[int]):
        self._start = start
        self._eos = eos
        self._prompt = None  # the tokens of every row before the text
        self._rows = {}  # text so far, as a tuple: its matcher

    def mask(self, input_ids, vocab: int):
        """int32 words (B, ceil(vocab / 32)), token t in bit t % 32, after ``input_ids`` (B, T).

        The first call's tokens are the prompt.
        """
        import torch

        ids = input_ids.numpy() if isinstance(input_ids, torch.Tensor) else np.asarray(input_ids)
        if self._prompt is None:
            self._prompt = ids.shape[1]
        rows = {}
        words = np.zeros((len(ids), (vocab + 31) // 32), np.uint32)
        for row, tokens in zip(words, ids[:, self._prompt :].tolist(), strict=True):
            text = tuple(tokens)
            if text not in rows:
                rows[text] = self._after(text)
            self._fill(row, rows[text], vocab)
        self._rows = rows
        return torch.from_numpy(words.view(np.int32))

    def _after(self, text: tuple):
        """The matcher that has read this text: from the one a token before it, or from the start."""
        before = self._rows.get(text[:-1]) if text else None
        matcher, rest = (before, text[-1:]) if before is not None else (self._start, text)
        matcher = matcher.deep_copy()
        for token in rest:
            if matcher.is_stopped():
                break  # padding behind a complete text
            matcher.consume_token(token)
        return matcher

    def _fill(self, row, matcher, vocab: int):
        if not matcher.is_stopped():
            found = np.frombuffer(matcher.compute_bitmask(), np.uint32)[: len(row)]
            row[: len(found)] = found
            if vocab % 32:
                row[-1] &= (1 << vocab % 32) - 1
        if not row.any():  # complete, or ended by something else
            for token in self._eos:
                row[token // 32] |= np.uint32(1 << token % 32)


def _library():
    try:
        import llguidance
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "honed.generation's grammars need the package llguidance: pip install honed[grammar]"
        ) from None
    return llguidance


def _wrapped(tokenizer, eos_token_id):
    """llguidance's view of a tokenizer, which takes it about a second to make."""
    from llguidance.hf import from_tokenizer

    eos = None if eos_token_id is None else (np.atleast_1d(eos_token_id).tolist())
    made = _tokenizers.setdefault(tokenizer, {})
    key = None if eos is None else tuple(eos)
    if key not in made:
        made[key] = from_tokenizer(tokenizer, eos_token=eos)
    return made[key]

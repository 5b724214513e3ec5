"""DRY's sequence breakers as tokens: where text is given, every way in which tokens can write it."""

from __future__ import annotations

import functools


def sequence_breakers(texts, tokenizer) -> list[list[int]]:
    """Token sequences for ``dry_sequence_breakers``: each begins with a token that holds a text, or that ends
    with a beginning of it and goes on with the tokens of its rest.
    """
    found = {}
    pieces = _pieces(tokenizer)
    for text in texts:
        if not text:
            raise ValueError("sequence_breakers: a text is empty, expected at least one character")
        rests = {i: _tokens(tokenizer, text[i:]) for i in range(1, len(text))}
        for token, piece in pieces:
            if text in piece:
                found[(token,)] = None
                continue
            for i, rest in rests.items():
                if piece.endswith(text[:i]):
                    found[(token, *rest)] = None
    return [list(tokens) for tokens in found]


def _tokens(tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


@functools.lru_cache(maxsize=4)
def _pieces(tokenizer) -> tuple[tuple[int, str], ...]:
    """Every token and its text."""
    special = set(tokenizer.all_special_ids)
    ids = [token for token in range(len(tokenizer)) if token not in special]
    return tuple(zip(ids, tokenizer.batch_decode([[token] for token in ids]), strict=True))

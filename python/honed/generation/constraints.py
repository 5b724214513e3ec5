"""What a constrained beam search has to write: phrases, or one of several; and how far a text is with it.

The interface is that of transformers 4, so constraints written for it serve here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class Constraint(ABC):
    """Tokens that have to come one after the other. ``seqlen`` is the greatest number of them."""

    seqlen: int

    @abstractmethod
    def advance(self) -> int | list[int] | None:
        """The token, or the tokens, that would bring it forward; None when it is fulfilled."""

    @abstractmethod
    def does_advance(self, token_id: int) -> bool:
        """Whether this token would."""

    @abstractmethod
    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        """Takes a token. Whether it brought it forward, fulfilled it, or threw it back to its beginning."""

    @abstractmethod
    def reset(self) -> None:
        """Back to its beginning."""

    @abstractmethod
    def remaining(self) -> int:
        """Tokens that are still to come, at most."""

    @abstractmethod
    def copy(self, stateful: bool = False) -> Constraint:
        """Another of the same, from its beginning or, where ``stateful``, from where this one is."""


class DisjunctiveConstraint(Constraint):
    """One of several phrases.

    Raises:
        ValueError: for no phrase, an empty one, ids that are no whole numbers from 0, or a phrase with which
            another one begins: the longer could never be reached.
    """

    def __init__(self, nested_token_ids: list[list[int]]):
        self._phrases = [tuple(_checked(phrase)) for phrase in nested_token_ids]
        if not self._phrases:
            raise ValueError("constraints: a list of phrases is empty, expected at least one")
        for one in self._phrases:
            for other in self._phrases:
                if one is not other and one != other and other[: len(one)] == one:
                    raise ValueError(
                        f"constraints: phrase {list(other)} begins with phrase {list(one)}, "
                        "expected phrases of which none begins another"
                    )
        self.token_ids = nested_token_ids
        self.seqlen = max(len(phrase) for phrase in self._phrases)
        self.largest = max(max(phrase) for phrase in self._phrases)
        self._made: tuple[int, ...] = ()

    def _next(self) -> list[int]:
        n = len(self._made)
        return list(dict.fromkeys(p[n] for p in self._phrases if len(p) > n and p[:n] == self._made))

    @property
    def completed(self) -> bool:
        return self._made in self._phrases

    def advance(self):
        return None if self.completed else self._next()

    def does_advance(self, token_id):
        return token_id in self._next()

    def update(self, token_id):
        if not self.does_advance(token_id):
            self.reset()
            return False, False, True
        self._made += (token_id,)
        return True, self.completed, False

    def reset(self):
        self._made = ()

    def remaining(self):
        return 0 if self.completed else self.seqlen - len(self._made)

    def copy(self, stateful=False):
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        if not stateful:
            other.reset()
        return other


class PhrasalConstraint(DisjunctiveConstraint):
    """A phrase. Raises ValueError as :class:`DisjunctiveConstraint` does."""

    def __init__(self, token_ids: list[int]):
        super().__init__([token_ids])
        self.token_ids = token_ids


def _checked(phrase) -> list[int]:
    if not isinstance(phrase, list | tuple) or not phrase:
        raise ValueError(f"constraints: phrase {phrase!r}, expected a list of token ids, not empty")
    for token in phrase:
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise ValueError(f"constraints: token {token!r} in phrase {list(phrase)}, expected 0 or more")
    return list(phrase)


def constraints_of(config, vocab: int) -> list[Constraint]:
    """Of ``constraints`` and of ``force_words_ids``: an entry is a phrase, or several for one of them."""
    found = list(config.constraints or [])
    for entry in config.force_words_ids or []:
        nested = isinstance(entry, list | tuple) and entry and isinstance(entry[0], list | tuple)
        found.append(DisjunctiveConstraint(list(entry)) if nested else PhrasalConstraint(entry))
    if not found:
        raise ValueError("constraints: neither constraints nor force_words_ids has an entry")
    for constraint in found:
        if not isinstance(constraint, Constraint):
            raise TypeError(
                f"constraints: {constraint!r}, expected a honed.generation.constraints.Constraint"
            )
        if isinstance(constraint, DisjunctiveConstraint) and constraint.largest >= vocab:
            raise ValueError(
                f"constraints: token {constraint.largest} in {constraint.token_ids}, expected one of the "
                f"vocabulary's {vocab}"
            )
    return found


class Progress:
    """How far a text is: which constraints it fulfils, which one it is in, which are to come."""

    def __init__(self, constraints: list[Constraint]):
        self._longest = max(c.seqlen for c in constraints)
        self._fulfilled = 0
        self._current: Constraint | None = None
        self._pending = [c.copy() for c in constraints]

    @property
    def completed(self) -> bool:
        return not self._pending and self._current is None

    def after(self, token: int) -> Progress:
        """That of the text followed by a token."""
        if self.completed:
            return self
        other = object.__new__(Progress)
        other.__dict__.update(self.__dict__)
        other._add(token)
        return other

    def _add(self, token: int) -> None:
        if self._current is not None:
            current = self._current.copy(stateful=True)
            _, complete, reset = current.update(token)
            if reset:
                self._pending = [*self._pending, current.copy()]
            self._fulfilled += complete
            self._current = None if reset or complete else current
            return
        for i, pending in enumerate(self._pending):
            if pending.does_advance(token):
                current = pending.copy()
                _, complete, _ = current.update(token)
                self._pending = self._pending[:i] + self._pending[i + 1 :]
                self._fulfilled += complete
                self._current = None if complete else current
                return

    def bank(self) -> int:
        """Its rank among texts: more is nearer to the end."""
        inside = 0 if self._current is None else self._longest - self._current.remaining()
        return self._fulfilled * self._longest + inside

    def advance(self) -> list[int]:
        """Tokens that bring it forward."""
        found = []
        for constraint in self._pending if self._current is None else [self._current]:
            token = constraint.advance()
            found += [token] if isinstance(token, int) else token or []
        return list(dict.fromkeys(found))

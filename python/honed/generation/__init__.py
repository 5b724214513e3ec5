"""Decoding: the engine's loop, honed's own options of ``generate``, grammars."""

from honed.generation.grammar import json_schema, lark, regex

"""Decoding: the engine's loop, the strategies, honed's own options of ``generate``, grammars."""

from honed.generation.breakers import sequence_breakers
from honed.generation.grammar import json_schema, lark, regex

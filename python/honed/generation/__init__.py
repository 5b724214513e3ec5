"""Decoding: the engine's loop, the strategies, honed's own options of ``generate``, grammars.

``model.generate`` of a honed model finds the strategies by transformers' option names; those that
transformers dropped serve any of its models: ``generate(custom_generate=honed.generation.dola, ...)``.
"""

from honed.generation.breakers import sequence_breakers
from honed.generation.compare import STRATEGIES, compare
from honed.generation.constrained_beam_search import constrained_beam_search
from honed.generation.contrastive_search import contrastive_search
from honed.generation.dola import dola
from honed.generation.grammar import json_schema, lark, regex
from honed.generation.group_beam_search import group_beam_search

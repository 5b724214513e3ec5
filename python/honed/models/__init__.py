"""Small readable models built from :mod:`honed.nn`."""

from honed.models.bert import Bert
from honed.models.gpt import GPT
from honed.models.transformer import Transformer

__all__ = ["GPT", "Bert", "Transformer"]

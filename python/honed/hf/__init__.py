"""Hugging Face models on honed's engine."""

from honed.hf.cache import HonedCache
from honed.hf.hone import hone, unhone
from honed.hf.load import load
from honed.hf.report import Report, Row, report

__all__ = ["HonedCache", "Report", "Row", "hone", "load", "report", "unhone"]

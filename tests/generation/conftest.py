"""What tests/hf has made for its own tests."""

from tests.hf.conftest import tokenizer

__all__ = ["tokenizer"]

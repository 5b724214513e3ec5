"""Fixtures and helpers that every test file may use."""

import pytest

from honed import _core


@pytest.fixture(autouse=True)
def _same_level_after():
    before, threads = _core.level(), _core.num_threads()
    yield
    assert _core.level() == before, "a test left another CPU level behind"
    assert _core.num_threads() == threads, "a test left another thread count behind"

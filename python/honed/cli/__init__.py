"""The ``honed`` command. Exit codes: 0 done, 1 it failed (one line says why), 2 wrong usage."""

from __future__ import annotations

import sys

import typer

from honed.cli.bench import bench
from honed.cli.chat import chat
from honed.cli.compare_strategies import compare_strategies
from honed.cli.demo import demo
from honed.cli.generate import generate
from honed.cli.info import info

app = typer.Typer(
    help="Hand-written kernels for PyTorch and Hugging Face models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (info, demo, generate, chat, compare_strategies, bench):
    app.command()(_command)


def main() -> None:
    """Entry point of the ``honed`` command."""
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        lines = str(error).strip().splitlines()
        print(f"honed: {lines[0] if lines else type(error).__name__}", file=sys.stderr)
        sys.exit(1)

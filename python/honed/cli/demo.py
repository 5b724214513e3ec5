"""``honed demo``: a small model answers, then honed is timed beside torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    model: Annotated[Path | None, typer.Option(help="A .gguf file instead of the packaged model.")] = None,
) -> None:
    """Asks a small language model two questions, then times plain torch beside honed."""
    from honed import demo as script

    script.run(model)

"""``python -m honed.cli``."""

from honed.cli import main

main()

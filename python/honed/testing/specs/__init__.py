"""One module an op, each with a ``SPEC``."""

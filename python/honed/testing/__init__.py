"""One specification an op: it serves the tests, the benchmarks and ``honed selfcheck``."""

from honed.testing.spec import Case, OpSpec, allowed_error, cpu_level, load_specs

__all__ = ["Case", "OpSpec", "allowed_error", "cpu_level", "load_specs"]

"""HONED_ISA: every usable level can be forced, anything else is refused at import and says what there is."""

import pytest

import honed
from honed import _core

USABLE = _core.usable_levels()
LEVEL = "import honed; print(honed.info().level)"


@pytest.mark.parametrize("level", USABLE)
def test_each_usable_level_is_chosen(output_of, level):
    assert output_of(LEVEL, torch=False, HONED_ISA=level) == level


def test_the_best_is_the_default(output_of):
    assert output_of(LEVEL, torch=False) == USABLE[-1]


def test_an_empty_choice_is_no_choice(output_of):
    assert output_of(LEVEL, torch=False, HONED_ISA="") == USABLE[-1]


@pytest.mark.parametrize("name", ["avx1024", "AVX2", "avx2 ", "native"])
def test_a_bad_name_raises_at_import(run_python, name):
    done = run_python("import honed", torch=False, HONED_ISA=name)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert f"HONED_ISA: '{name}'" in last
    for level in USABLE:
        assert level in last


def test_an_unusable_level_raises_at_import(run_python):
    missing = [level for level in _core.compiled_levels() if level not in USABLE]
    if not missing:
        pytest.skip("this CPU runs every level that was compiled")
    for level in missing:
        done = run_python("import honed", torch=False, HONED_ISA=level)
        assert done.returncode != 0
        assert f"HONED_ISA: '{level}'" in done.stderr


def test_set_level_refuses_and_keeps_the_old_one():
    before = honed.info().level
    with pytest.raises(ValueError, match="expected one of: baseline"):
        _core.set_level("avx1024")
    assert honed.info().level == before


def test_levels_change_the_code_that_runs(output_of):
    """The forced level computes; the answers agree to rounding."""
    code = """
        import numpy as np, honed
        x = np.linspace(-3, 3, 1001, dtype=np.float32).reshape(7, 143)
        print(float(np.abs(honed.ops.rms_norm(x, (143,)) - x / np.sqrt((x.astype(np.float64) ** 2).mean(1,
            keepdims=True) + 1.1920929e-07)).max()) < 1e-6)
    """
    for level in USABLE:
        assert output_of(code, torch=False, HONED_ISA=level) == "True", level

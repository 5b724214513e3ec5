"""Four environment variables, read in one place."""

import re

VARIABLES = {"HONED_ISA", "HONED_NUM_THREADS", "HONED_CUDA_LIB", "HONED_VERBOSE"}
# Macros and CMake variables; they name no environment variable.
QUOTED = re.compile(r"""["']HONED_[A-Z0-9_]+["']""")


def texts(root, folder, *suffixes):
    for path in sorted((root / folder).rglob("*")):
        if path.suffix in suffixes and "__pycache__" not in path.parts:
            yield path.relative_to(root).as_posix(), path.read_text()


def test_getenv_only_in_env_cpp(root):
    found = [name for name, text in texts(root, "csrc", ".h", ".cpp", ".cu", ".cuh") if "getenv" in text]
    assert found == ["csrc/core/env.cpp"]


def test_the_package_reads_no_variable_of_its_own(root):
    """Where another program's files lie (XDG_CACHE_HOME, HF_HOME) is all that Python may ask for."""
    pattern = re.compile(r"os\.environ|getenv|environb")
    found = {
        name: lines
        for name, text in texts(root, "python", ".py")
        if (
            lines := [
                line.strip()
                for line in text.splitlines()
                if pattern.search(line) and not re.search(r"""["'](XDG|HF)_""", line)
            ]
        )
    }
    assert not found, f"the environment is read in csrc/core/env.cpp only: {found}"


def test_only_the_four_variables(root):
    read = set(re.findall(r'read\("(\w+)"\)', (root / "csrc" / "core" / "env.cpp").read_text()))
    assert read == VARIABLES
    for folder in ("csrc", "python"):
        for name, text in texts(root, folder, ".h", ".cpp", ".cu", ".cuh", ".py"):
            named = {each[1:-1] for each in QUOTED.findall(text)}
            assert named <= VARIABLES, f"{name} names {named - VARIABLES}"


def test_the_readme_explains_them(root):
    readme = (root / "README.md").read_text()
    assert set(re.findall(r"HONED_[A-Z_]+", readme)) >= VARIABLES

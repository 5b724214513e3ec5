"""No level's code can be linked into another's: on -O0 objects, nothing weak, nothing outside the namespace.

An inline function with external linkage compiled with -mavx512f is a weak symbol, and the linker keeps one
copy of them for the whole program, the baseline's calls included. Optimised objects hide it by inlining.
"""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

# W, V: weak; u: unique, of an inline variable or a static in an inline function. (w, v: weak but not defined:
# the kernels in a table that its level does not compile.)
SHARED = set("WVu")
DEFINED = set("TDBRGSCA") | SHARED


def compiler():
    return os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


pytestmark = pytest.mark.skipif(
    not (compiler() and shutil.which("nm")),
    reason="needs a C++ compiler and nm, which are not installed here",
)


def flags_of(root):
    """{level: flags} of cmake/isa.cmake."""
    text = (root / "cmake" / "isa.cmake").read_text()
    found = {}
    for level, body in re.findall(r"set\(HONED_FLAGS_(\w+)\s+([^)]*)\)", text):
        flags = []
        for word in body.replace('"', "").split():
            other = re.fullmatch(r"\$\{HONED_FLAGS_(\w+)\}", word)
            flags += found[other.group(1)] if other else [word]
        found[level] = flags
    return found


def compile_object(root, source, level, flags, target):
    launcher = [shutil.which("ccache")] if shutil.which("ccache") else []
    command = [*launcher, *compiler().split(), "-std=c++20", "-O0", "-fPIC", "-fvisibility=hidden", "-w"]
    command += [*flags, f"-DHONED_LEVEL={level}", f"-I{root / 'csrc'}", "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{source.name} at {level}: {done.stderr[-2000:]}"
    return target


def leaks(target, level):
    """Symbols of the object that another level's object could be linked to."""
    listed = subprocess.run(["nm", "-C", str(target)], capture_output=True, text=True, check=True).stdout
    found = []
    for line in listed.splitlines():
        match = re.match(r"(?:[0-9a-f]+)?\s+(\S) (.*)$", line)
        kind, name = match.groups()
        if kind in SHARED or (kind in DEFINED and not name.startswith(f"honed::cpu::{level}::")):
            found.append(f"{kind} {name}")
    return found


def supports(flags, tmp_path):
    source = tmp_path / "empty.cpp"
    source.write_text("")
    command = [*compiler().split(), *flags, "-c", str(source), "-o", str(tmp_path / "empty.o")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# The two ends: the levels between them are the same sources with flags in between.
@pytest.mark.parametrize("level", ["avx2", "avx512_amx"])
def test_a_level_shares_no_symbol(root, tmp_path, level):
    flags = flags_of(root)[level]
    if not supports(flags, tmp_path):
        pytest.skip(f"the compiler does not know {' '.join(flags)}")
    sources = [
        *sorted((root / "csrc" / "cpu" / "kernels").glob("*.cpp")),
        root / "csrc" / "cpu" / "table.cpp",
    ]

    def check(source):
        return source.name, leaks(
            compile_object(root, source, level, flags, tmp_path / f"{source.stem}.o"), level
        )

    with ThreadPoolExecutor(2) as pool:
        found = {name: wrong for name, wrong in pool.map(check, sources) if wrong}
    assert not found, f"symbols shared between levels: {found}"


def test_the_check_sees_an_inline_function(root, tmp_path):
    source = tmp_path / "leaky.cpp"
    source.write_text(
        "inline float twice(float x) { return x + x; }\n"
        "namespace honed::cpu::avx2 { float user(float x) { return twice(x); } }\n"
        "float outside(float x) { return x; }\n"
    )
    found = leaks(compile_object(root, source, "avx2", [], tmp_path / "leaky.o"), "avx2")
    assert sorted(found) == ["T outside(float)", "W twice(float)"]

"""AMX and AVX512-FP16 kernels on a CPU without them: their intrinsics in plain C++, compared with loops.

The program in this folder includes the kernel's own sources. Built with the address sanitizer where the
compiler has it, so that a tile that reads past its rows ends the test.
"""

import os
import re
import shutil
import subprocess

import pytest

from honed import _core


def compiler():
    return os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


pytestmark = pytest.mark.skipif(not compiler(), reason="needs a C++ compiler, which is not installed here")


def flags_of(root, level):
    text = (root / "cmake" / "isa.cmake").read_text()
    words = re.search(rf"set\(HONED_FLAGS_{level}\s+([^)]*)\)", text).group(1).split()
    flags = []
    for word in words:
        below = re.fullmatch(r"\$\{HONED_FLAGS_(\w+)\}", word)
        flags += flags_of(root, below.group(1)) if below else [word]
    return [flag for flag in flags if flag != "-fno-exceptions"]


def build(root, level, folder):
    """The program with the vectors of a level; without the sanitizer where that does not link."""
    launcher = [shutil.which("ccache")] if shutil.which("ccache") else []
    command = [*launcher, *compiler().split(), "-std=c++20", "-O1", "-w", "-DHONED_LEVEL=tested"]
    command += [f"-I{root / 'csrc'}", f"-I{root / 'tests' / 'emulation'}", *flags_of(root, level)]
    target = folder / level
    for more in (["-fsanitize=address", "-fno-sanitize-recover"], []):
        objects = []
        for file in (root / "tests/emulation/main.cpp", root / "csrc/ops/_product_rate.cpp"):
            objects.append(folder / f"{file.stem}.o")
            compiled = subprocess.run(
                [*command, *more, "-c", str(file), "-o", str(objects[-1])],
                capture_output=True,
                text=True,
                check=False,
            )
            assert compiled.returncode == 0, compiled.stderr[-3000:]
        linked = subprocess.run(
            [*compiler().split(), *more, *map(str, objects), "-o", str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        if linked.returncode == 0:
            return target
    raise AssertionError(linked.stderr[-3000:])


@pytest.mark.parametrize("level", ["baseline", "avx512"])
def test_emulated_kernels_equal_loops(root, tmp_path, level):
    if level not in _core.usable_levels():
        pytest.skip(f"this CPU does not run {level}")
    done = subprocess.run([build(root, level, tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[:3000]
    assert done.stdout == "all right\n"

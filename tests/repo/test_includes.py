"""The arrows of csrc/README.md: includes point down, and nothing below bindings/ knows Python."""

import re

import pytest

# Folder (the longest that fits a file) and what its files may include, as prefixes below csrc/.
ALLOWED = {
    "core/": ("core/",),
    "ops/": ("core/", "ops/", "cpu/dispatch.h", "cpu/table.h"),
    "cpu/": ("core/", "cpu/table.h", "cpu/dispatch.h", "cpu/levels.def", "ops.def"),
    "cpu/visit.h": ("core/dtype.h", "cpu/simd/"),
    "cpu/simd/": ("core/dtype.h", "cpu/simd/"),
    "cpu/kernels/": ("core/", "cpu/simd/", "cpu/kernels/", "cpu/visit.h", "ops/"),
    "engine/": ("core/", "ops/", "cpu/", "engine/"),
    "cuda/": ("core/", "ops/", "cuda/", "ops.def"),
    "bindings/": ("",),
}
PYTHON = re.compile(r"\b(pybind11|PyObject|Python\.h|torch/|ATen/|c10/|at::Tensor|py::)")
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.M)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)


def layer_of(name):
    fitting = [folder for folder in ALLOWED if name.startswith(folder)]
    return max(fitting, key=len) if fitting else None


def includes(text):
    return [quoted or angled for quoted, angled in INCLUDE.findall(text)]


def wrong_includes(name, text, exists):
    """What the file of that name (below csrc/) includes and may not."""
    allowed = ALLOWED[layer_of(name)]
    own = [each for each in includes(text) if exists(each)]
    return [each for each in own if not any(each.startswith(prefix) for prefix in allowed)]


def sources(root):
    csrc = root / "csrc"
    for path in sorted(csrc.rglob("*")):
        if path.suffix in (".h", ".cpp", ".cu", ".cuh"):
            yield path.relative_to(csrc).as_posix(), path.read_text()


def test_includes_point_down(root):
    exists = lambda each: (root / "csrc" / each).exists()  # noqa: E731
    found = {name: wrong for name, text in sources(root) if (wrong := wrong_includes(name, text, exists))}
    assert not found, f"includes that point up or sideways (csrc/README.md): {found}"


def test_every_file_has_a_layer(root):
    homeless = [name for name, _ in sources(root) if layer_of(name) is None]
    assert not homeless, f"files outside the folders of csrc/README.md: {homeless}"


def test_only_bindings_know_python(root):
    found = {
        name: hits
        for name, text in sources(root)
        if not name.startswith("bindings/") and (hits := sorted(set(PYTHON.findall(COMMENT.sub("", text)))))
    }
    assert not found, f"Python below bindings/: {found}"


def test_own_headers_are_found_from_csrc(root):
    """`#include "tensor.h"` of a neighbour would escape the rule above."""
    found = {
        name: [
            quoted for quoted, _ in INCLUDE.findall(text) if quoted and not (root / "csrc" / quoted).exists()
        ]
        for name, text in sources(root)
    }
    found = {name: wrong for name, wrong in found.items() if wrong}
    assert not found, f"quoted includes that are no path below csrc/: {found}"


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("core/a.h", '#include "ops/rms_norm.h"\n', ["ops/rms_norm.h"]),
        ("ops/a.cpp", '#include "cpu/simd/vec.h"\n', ["cpu/simd/vec.h"]),
        ("ops/a.cpp", '#include "cpu/dispatch.h"\n', []),
        ("cpu/kernels/a.cpp", '#include "cpu/dispatch.h"\n', ["cpu/dispatch.h"]),
        ("engine/a.cpp", '#include "bindings/tensor.h"\n', ["bindings/tensor.h"]),
    ],
)
def test_the_rule_itself(name, text, wrong):
    assert wrong_includes(name, text, lambda each: True) == wrong

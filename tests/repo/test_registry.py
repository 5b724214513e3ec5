"""One op, one word: csrc/ops.def and the files and lists of every layer name the same ops."""

import re

import pytest

import honed.ops
from honed.testing import load_specs

# Bindings of what is no op: the module, the tensors, torch's registry, the engine.
NOT_OPS_BINDINGS = {"function", "module", "native", "tensor", "torch_library"}
# Ops with a Python function a number of spatial dimensions: conv1d, conv2d, conv3d.
DIMENSIONS = {
    "conv": (1, 2, 3),
    "conv_transpose": (1, 2, 3),
    "max_pool": (1, 2),
    "avg_pool": (1, 2),
    "adaptive_avg_pool": (1, 2),
}
# Made of other ops, in Python alone.
COMPOSED = {"conv_bn_relu"}


def registered(root):
    """{op: its further kernels} in the order of ops.def."""
    found = {}
    text = re.sub(r"//[^\n]*", "", (root / "csrc" / "ops.def").read_text())
    text = re.sub(r"^#.*", "", text, flags=re.M)
    for kind, name in re.findall(r"HONED_(OP|COMPOSED|KERNEL)\(\s*(\w+)\s*[,)]", text):
        if kind != "KERNEL":
            assert name not in found, f"ops.def has {name} twice"
            found[name] = []
        else:
            assert found, f"ops.def: HONED_KERNEL({name}) stands before any HONED_OP"
            found[list(found)[-1]].append(name)
    return found


def composed(root):
    """The ops without a kernel of their own."""
    return set(re.findall(r"^HONED_COMPOSED\((\w+)\)", (root / "csrc" / "ops.def").read_text(), re.M))


def stems(folder, pattern):
    """File names without suffix; helpers begin with an underscore."""
    return {path.stem for path in folder.glob(pattern) if not path.name.startswith("_")}


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("csrc/ops", "*.cpp"),
        ("csrc/ops", "*.h"),
        ("python/honed/ops", "*.py"),
        ("python/honed/testing/specs", "*.py"),
    ],
)
def test_one_file_an_op(root, folder, pattern):
    composed = COMPOSED if folder.startswith("python") else set()
    assert stems(root / folder, pattern) - composed == set(registered(root)), (
        f"{folder}/{pattern} and csrc/ops.def differ"
    )


def test_one_binding_an_op(root):
    engine = {path.stem for path in (root / "csrc" / "engine").glob("*")} | {"engine"}
    extra = stems(root / "csrc" / "bindings", "*.cpp") - set(registered(root))
    assert not set(registered(root)) - stems(root / "csrc" / "bindings", "*.cpp")
    assert extra <= NOT_OPS_BINDINGS | engine, f"bindings of no op: {extra - NOT_OPS_BINDINGS - engine}"


def test_cuda_kernels_are_ops(root):
    assert stems(root / "csrc" / "cuda" / "kernels", "*.cu") <= set(registered(root))


def test_python_exports_every_op(root):
    assert list(honed.ops.__all__) == sorted(honed.ops.__all__), "honed.ops.__all__ is not sorted"
    names = {f"{op}{n}d" if n else op for op in registered(root) for n in DIMENSIONS.get(op, (0,))}
    assert set(honed.ops.__all__) >= names
    for name in honed.ops.__all__:
        assert getattr(honed.ops, name).__doc__, f"honed.ops.{name} has no docstring"


def test_specs_are_named_after_their_file():
    for name, spec in load_specs().items():
        assert spec.name == name
        assert any(case.bench for case in spec.cases), f"{name}: no case is marked for the benchmarks"


def test_every_kernel_is_where_its_name_says(root):
    """In a file named after it, its op or a sister kernel; and every file holds one."""
    folder = root / "csrc" / "cpu" / "kernels"
    found = set()
    for op, kernels in registered(root).items():
        texts = {
            name: (folder / f"{name}.cpp").read_text()
            for name in (op, *kernels)
            if (folder / f"{name}.cpp").exists()
        }
        for kernel in (op, *kernels) if op not in composed(root) else kernels:
            assert any(re.search(rf"^void {kernel}\(const ", text, re.M) for text in texts.values()), kernel
        found |= set(texts)
    assert stems(folder, "*.cpp") == found, "a file in csrc/cpu/kernels holds no registered kernel"


def test_levels_agree(root):
    rows = re.findall(r"^HONED_LEVEL_ROW\((\w+)\)", (root / "csrc" / "cpu" / "levels.def").read_text(), re.M)
    cmake = (root / "cmake" / "isa.cmake").read_text()
    assert rows == re.search(r"set\(HONED_LEVELS ([^)]*)\)", cmake).group(1).split()
    assert set(rows) == set(re.findall(r"set\(HONED_FLAGS_(\w+)", cmake))
    assert rows == re.findall(
        r"#ifdef HONED_WITH_(\w+)", (root / "csrc" / "cpu" / "dispatch.cpp").read_text()
    )
    assert set(honed.info().levels_compiled) <= set(rows)

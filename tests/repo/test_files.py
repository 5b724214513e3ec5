"""House rules that a file can break by itself."""

import re

CODE = {".py", ".h", ".cpp", ".cu", ".cuh", ".cmake", ".def"}
CPP = {".h", ".cpp", ".cu", ".cuh", ".def"}
LONGEST = 400
SUFFIXED = re.compile(r"_(v\d+|new|old|fast|final|tmp)$")


def named(root, files):
    return {path.relative_to(root).as_posix(): path for path in files}


def test_no_file_is_too_long(root, own_files):
    lengths = {
        name: count
        for name, path in named(root, own_files).items()
        if path.suffix in CODE and (count := len(path.read_text().splitlines())) > LONGEST
    }
    assert not lengths, f"files of over {LONGEST} lines: {lengths}"


def test_sources_are_ascii(root, own_files):
    found = [
        name
        for name, path in named(root, own_files).items()
        if path.suffix in CPP and not path.read_text().isascii()
    ]
    assert not found, f"C++ files with other than ASCII characters: {found}"


def test_no_long_dashes(root, own_files):
    found = [
        name
        for name, path in named(root, own_files).items()
        if (path.suffix in CODE | {".md", ".toml", ".yaml"} or path.name == "Makefile")
        and re.search("[\u2013\u2014]", path.read_text())
    ]
    assert not found, f"files with en or em dashes: {found}"


def test_no_version_suffixes_or_leftovers(root, own_files):
    names = named(root, own_files)
    assert not [name for name, path in names.items() if SUFFIXED.search(path.stem)]
    word = "TO" + "DO"
    left = [
        name
        for name, path in names.items()
        if path.suffix in CODE and re.search(rf"\b{word}\b", path.read_text())
    ]
    assert not left, f"files with open ends: {left}"


def test_examples_are_short(root, own_files):
    for name, path in named(root, own_files).items():
        if name.startswith("examples/") and path.suffix == ".py":
            assert len(path.read_text().splitlines()) < 60, f"{name} has 60 lines or more"


def test_the_map_is_short(root):
    assert len((root / "csrc" / "README.md").read_text().splitlines()) < 60

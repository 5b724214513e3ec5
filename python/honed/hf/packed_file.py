"""Packed weights in a file: written once, mapped by every later load, refused where anything differs.

A safetensors file. Its header says which weights it was packed from (a hash of every byte), how, and by which
version; each packed weight is one to three tensors of bytes, aligned to 64. The map is read-only and shared:
processes that load the same file share its pages.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import sys
import tempfile
import warnings
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from honed._lib import _core
from honed._version import __version__

_MAGIC = "honed packed weights"
_ALIGN = 64
_LONGEST_HEADER = 100_000_000
_FIELDS = ("kind", "group", "gated", "rows", "n", "k")


class Stale(Exception):
    """Why a file does not serve."""


def identity(binding, weights: str | None, group: int) -> dict[str, str]:
    """What a file must say to be these weights, packed in this way."""
    digest = blake2b(json.dumps(binding.description, sort_keys=True).encode(), digest_size=16)
    hashes: dict[int, int] = {}
    for part in binding.parts:
        for name, module in zip(part.names, part.modules, strict=True):
            for kind, p in module._parameters.items():
                if p is None:
                    continue
                if id(p) not in hashes:
                    hashes[id(p)] = _core.hash_bytes(p.detach().contiguous())
                entry = (part.key, part.layer, name, kind, str(p.dtype), tuple(p.shape), hashes[id(p)])
                digest.update(repr(entry).encode())
    return {
        "format": _MAGIC,
        "layout": str(_core.packed_layout),
        "honed": __version__,
        "weights": str(weights),
        "group": str(group),
        "source": digest.hexdigest(),
    }


def shapes_of(binding) -> dict[str, dict]:
    """What each packed part must look like, by its name in the file."""
    found = {}
    for part in binding.parts:
        if part.packed:
            rows = [weight.shape[0] for weight in part.weights]
            gated = is_gated(part)
            found[name_of(part)] = {
                "gated": gated,
                "n": rows[0] if gated else sum(rows),
                "k": part.weights[0].shape[1],
                "bias": part.biases is not None,
            }
    return found


def is_gated(part) -> bool:
    """Gate and up are packed woven."""
    return part.key == "up" and len(part.modules) == 2


def name_of(part) -> str:
    return part.key if part.layer is None else f"layers.{part.layer}.{part.key}"


def load(path: Path, expected: dict[str, str], shapes: dict[str, dict]) -> dict:
    """``{name: PackedWeight}`` in the mapped file, or raises :class:`Stale`. Nothing in it is trusted."""
    try:
        with path.open("rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise Stale("there is none yet") from None
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise Stale(str(error)) from error
    start, header = _header(buffer)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != _MAGIC:
        raise Stale("it is no file of packed weights")
    for name, value in expected.items():
        if metadata.get(name) != value:
            what = "it was packed from other weights" if name == "source" else f"its {name} is"
            raise Stale(what if name == "source" else f"{what} {metadata.get(name)!r}, expected {value!r}")
    extents = _extents(header, start, len(buffer))
    packs, made = {}, {}
    try:
        parts = json.loads(metadata["parts"])
        if parts.keys() != shapes.keys():
            raise Stale("it holds other parts")
        for name, shape in shapes.items():
            kind, group, gated, rows, n, k = (parts[name][field] for field in _FIELDS)
            if (gated, n, k) != (shape["gated"], shape["n"], shape["k"]):
                raise Stale(f"its {name} has another shape")
            places = [extents.get(f"{parts[name]['at']}.{field}") for field in ("data", "scales", "bias")]
            if (places[2] is not None) != shape["bias"]:
                raise Stale(f"its {name} has {'no' if shape['bias'] else 'a'} bias")
            same = (kind, group, gated, rows, n, k, *places)
            if same not in made:
                made[same] = _core.map_packed(buffer, *same)
            packs[name] = made[same]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise Stale(f"it is damaged ({error})") from error
    if _checksum(packs) != metadata.get("checksum"):
        raise Stale("its bytes were changed")
    return packs


def _header(buffer) -> tuple[int, dict]:
    size = len(buffer)
    length = int.from_bytes(buffer[:8], "little") if size >= 8 else _LONGEST_HEADER
    if length > min(size - 8, _LONGEST_HEADER):
        raise Stale(f"it is cut short or no safetensors file ({size} bytes)")
    try:
        header = json.loads(buffer[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise Stale(f"its header is damaged ({error})") from error
    if not isinstance(header, dict):
        raise Stale("its header is damaged")
    return 8 + length, header


def _extents(header: dict, start: int, size: int) -> dict[str, tuple[int, int]]:
    """Begin and end of every tensor in the file; together they are as long as the file."""
    found = {}
    try:
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= size - start:
                raise Stale(f"its {name} lies outside the file: it is cut short or damaged")
            if entry["dtype"] != "U8" or entry["shape"] != [end - begin]:
                raise Stale(f"its {name} is {entry['dtype']} {entry['shape']}, not {end - begin} bytes")
            found[name] = (start + begin, start + end)
    except (KeyError, TypeError, ValueError) as error:
        raise Stale(f"its header is damaged ({error})") from error
    end = max((end for _, end in found.values()), default=start)
    if end != size:
        raise Stale(f"it has {size} bytes, expected {end}")
    return found


def _checksum(packs: dict) -> str:
    digest = blake2b(digest_size=16)
    for packed, name in _once(packs).items():
        for field, memory in _core.memory_of(packed).items():
            digest.update(f"{name}.{field} {_core.hash_bytes(memory)};".encode())
    return digest.hexdigest()


def _once(packs: dict) -> dict:
    """Each packed weight and the first name that has it: tied parts share one."""
    return {packed: name for name, packed in sorted(packs.items(), reverse=True)}


def save(path: Path, identity: dict[str, str], packs: dict) -> bool:
    """Writes the file beside ``path`` and renames it into place. Where it cannot be written, it warns."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    once = _once(packs)
    tensors = {
        f"{name}.{field}": np.frombuffer(memory, np.uint8)
        for packed, name in once.items()
        for field, memory in _core.memory_of(packed).items()
    }
    parts = {
        name: dict(
            zip(_FIELDS, (p.kind, p.group, p.gated, p.rows, p.out_features, p.in_features), strict=True)
        )
        | {"at": once[p]}
        for name, p in packs.items()
    }
    metadata = {**identity, "parts": json.dumps(parts), "checksum": _checksum(packs), "pad": ""}
    metadata["pad"] = " " * _pad(tensors, metadata)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        save_file(tensors, temporary, metadata)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"hone: packed_cache {path} cannot be written: {error}", stacklevel=2)
        if temporary is not None:
            with suppress(OSError):
                Path(temporary).unlink()
        return False
    return True


def _pad(tensors: dict, metadata: dict) -> int:
    """Spaces that make the header, whose length safetensors rounds up to 8, end at a multiple of 64."""
    header, at = {"__metadata__": metadata}, 0
    for name, tensor in sorted(tensors.items()):
        header[name] = {"dtype": "U8", "shape": [tensor.size], "data_offsets": [at, at + tensor.size]}
        at += tensor.size
    length = 8 + math.ceil(len(json.dumps(header, separators=(",", ":"))) / 8) * 8
    return -length % _ALIGN


def cached(path: str, binding, weights: str | None, group: int, pack) -> tuple[dict, str]:
    """The packed parts by (key, layer), from the file or else by ``pack()``, and what was done, in words."""
    path = Path(path).expanduser()
    names = {name_of(part): (part.key, part.layer) for part in binding.parts if part.packed}
    expected = identity(binding, weights, group)
    try:
        packs = load(path, expected, shapes_of(binding))
        said = f"packed_cache: mapped {path}"
    except Stale as stale:
        fresh = pack()
        written = save(path, expected, {name: fresh[key] for name, key in names.items()})
        said = f"packed_cache: packed anew, {'wrote' if written else 'could not write'} {path}: {stale}"
        packs = {name: fresh[key] for name, key in names.items()}
    if _core.verbose():
        print(f"honed: {said}", file=sys.stderr)
    return {key: packs[name] for name, key in names.items()}, said

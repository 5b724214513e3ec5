"""Original weights out of memory: a parameter's values move to a file, mapped in their place.

A clean page of a private map costs no memory that the kernel could not take back; reading one that it took
brings it back from the file; writing to one gives the process its own copy and leaves the file alone. The
file has no name: it goes when the last parameter on it does.
"""

from __future__ import annotations

import bisect
import mmap
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from honed._lib import _core

_SMALLEST = 64 << 10  # bytes of a storage that is worth a move
_TRIM = 64 << 20  # freed bytes after which the heap is given back
_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
_PAGE = mmap.PAGESIZE
_PRESENT_OR_SWAPPED = np.uint64(3 << 62)  # of an entry of pagemap
_OF_A_FILE = np.uint64(1 << 61)


class Originals:
    """Moves parameters to a temporary file on a disk; those that lie on a file already stay there."""

    def __init__(self, model, parameters):
        maps = _Maps()
        self._groups: dict[int, list] = {}  # a storage's address -> the parameters on it
        self._places: dict[int, int] = {}  # a storage's address -> where it goes in the file
        self._freed = 0
        self._mapped: list = []  # parameters that lie on a file as they are
        wanted = {p.untyped_storage().data_ptr() for p in parameters if _movable(p)}
        for p in model.parameters():
            at = p.untyped_storage().data_ptr() if _movable(p) else 0
            if at in wanted and not maps.clean(p):
                self._groups.setdefault(at, []).append(p)
            elif at in wanted:
                self._mapped.append(p)
        size = 0
        for at, (p, *_) in self._groups.items():
            self._places[at] = size
            size += -(-p.untyped_storage().nbytes() // _PAGE) * _PAGE
        if size:
            self._reserve(size)

    def _reserve(self, size: int) -> None:
        folder = _disk_folder()
        try:
            if folder is None:
                raise OSError("no folder for temporary files lies on a disk (TMPDIR names one)")
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            os.posix_fallocate(self._file.fileno(), 0, size)
            self._map = mmap.mmap(
                self._file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
        except OSError as error:
            warnings.warn(f"hone: free_originals: the originals stay in memory: {error}", stacklevel=2)
            self._groups = {}

    def release(self, parameters) -> None:
        """Frees the memory of these parameters; each keeps its values."""
        for p in parameters:
            self._move(self._groups.pop(p.untyped_storage().data_ptr(), []))
        if self._freed >= _TRIM:
            _core.trim_heap()
            self._freed = 0

    def finish(self) -> None:
        """Gives all that was freed back to the system."""
        _core.trim_heap()
        for p in self._mapped:
            if not _own_pages(*_extent(p)):
                _core.drop_pages(_bytes_of(p.untyped_storage()))

    def _move(self, group: list) -> None:
        if not group:
            return
        storage = group[0].untyped_storage()
        place = self._places[storage.data_ptr()]
        try:
            _write(self._file.fileno(), place, memoryview(_bytes_of(storage).numpy()))
        except OSError as error:
            warnings.warn(f"hone: free_originals: a weight stays in memory: {error}", stacklevel=2)
            return
        self._freed += storage.nbytes()
        on_file = torch.frombuffer(self._map, dtype=torch.uint8, count=storage.nbytes(), offset=place)
        for p in group:
            p.data = torch.empty(0, dtype=p.dtype).set_(
                on_file.untyped_storage(), p.storage_offset(), p.shape, p.stride()
            )


class MapWatch:
    """Sees every edit of parameters that lie on private maps, and reads none of their values.

    Writing to a page of such a map makes it the process's own, and /proc/self/pagemap tells which are.
    """

    def __init__(self, parts):
        maps = _Maps()
        found = {
            (*_extent(p), (part.key, part.layer))
            for part in parts
            for module in part.modules
            for p in module._parameters.values()
            if p is not None and _movable(p) and maps.clean(p)
        }
        self._extents = sorted(found, key=lambda each: each[:2])
        self.addresses = {begin for begin, _, _ in self._extents}

    def edited(self) -> set:
        """The parts with a parameter that was written to."""
        runs: list[list] = []
        for begin, end, owner in self._extents:
            if not runs or begin > runs[-1][1] + (1 << 20):
                runs.append([begin, end, []])
            runs[-1][1] = max(runs[-1][1], end)
            runs[-1][2].append((begin, end, owner))
        return {
            owner
            for start, stop, members in runs
            if _own_pages(start, stop)
            for begin, end, owner in members
            if _own_pages(begin, end)
        }


class _Maps:
    """The private maps of files in this process."""

    def __init__(self):
        self._begins, self._ends = [], []
        try:
            lines = Path("/proc/self/maps").read_text().splitlines()
            _own_pages(id(self), id(self) + 1)
        except OSError:  # no such kernel interface: no map is known
            return
        for line in lines:
            extent, access, _, _, inode, *_ = line.split(maxsplit=5)
            if access[3] == "p" and inode != "0":
                begin, end = (int(each, 16) for each in extent.split("-"))
                if self._ends and self._ends[-1] == begin:
                    self._ends[-1] = end
                else:
                    self._begins.append(begin)
                    self._ends.append(end)

    def clean(self, p) -> bool:
        """Whether all of ``p`` lies on a file and none of it was written to."""
        begin, end = _extent(p)
        at = bisect.bisect_right(self._begins, begin) - 1
        return at >= 0 and end <= self._ends[at] and not _own_pages(begin, end)


def _own_pages(begin: int, end: int) -> bool:
    """Whether any page of these addresses is the process's own, not a file's."""
    first, last = begin // _PAGE, -(-end // _PAGE)
    entries = bytearray((last - first) * 8)
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(first * 8)
        view, done = memoryview(entries), 0
        while done < len(entries):
            count = file.readinto(view[done:])
            if not count:
                raise OSError("pagemap ended early")
            done += count
    pages = np.frombuffer(entries, np.uint64)
    return bool((((pages & _PRESENT_OR_SWAPPED) != 0) & ((pages & _OF_A_FILE) == 0)).any())


def _movable(p) -> bool:
    """A tensor in ordinary memory of this process alone."""
    return (
        type(p.data) is torch.Tensor
        and p.device.type == "cpu"
        and p.layout is torch.strided
        and not p.is_inference()
        and not p.is_shared()
        and p.untyped_storage().nbytes() >= _SMALLEST
    )


def _extent(p) -> tuple[int, int]:
    begin = p.untyped_storage().data_ptr()
    return begin, begin + p.untyped_storage().nbytes()


def _bytes_of(storage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _write(fd: int, at: int, data: memoryview) -> None:
    while data:
        count = os.pwrite(fd, data[: 1 << 30], at)
        data, at = data[count:], at + count


def _disk_folder() -> str | None:
    """The first folder for temporary files that is not kept in memory."""
    for folder in (tempfile.gettempdir(), "/var/tmp"):
        if os.path.isdir(folder) and os.access(folder, os.W_OK) and _file_system(folder) not in _IN_MEMORY:
            return folder
    return None


def _file_system(folder: str) -> str | None:
    """The type of the file system of a folder, by the mount that holds it."""
    path, best, kind = Path(folder).resolve(), -1, None
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        where, _, what = line.partition(" - ")
        mount = where.split()[4]
        if path.is_relative_to(mount) and len(mount) >= best:
            best, kind = len(mount), what.split()[0]
    return kind

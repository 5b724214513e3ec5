"""Memory that ends at a page which nobody may touch: a read or write beyond it ends the process."""

import ctypes
import mmap

import pytest
import torch

_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


def _guarded(tensor, at_end=True):
    size = (1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))) * (
        tensor.element_size() if tensor.numel() else 0
    )
    pages = -(-size // _PAGE) * _PAGE
    memory = mmap.mmap(-1, pages + 2 * _PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + _PAGE + pages):
        if _libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(_PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    if not size:
        return tensor
    offset = _PAGE + (pages - size if at_end else 0)
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=size // tensor.element_size(), offset=offset)
    return flat.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


@pytest.fixture(scope="session")
def guarded():
    """``guarded(tensor, at_end=True)``: a copy with its strides whose last element is the last before a page
    without access; not ``at_end``, whose first element is the first after one."""
    return _guarded

"""Elements of a tensor as mapped memory: what lies in the page cache is counted where it lies, without a copy."""

import ctypes
import mmap
import os

import numpy as np

from prism_nemo.checkpoints.hf_folder import Entry

_POPULATE_READ = 22
"""Of Linux 5.14 and later: brings all pages in, and reports what cannot be read instead of killing the process."""
_HUGE = 1 << 21
"""Windows end where large pages do: those of the page cache are then mapped in one piece, and much faster."""
_libc = ctypes.CDLL(None, use_errno=True)


def mapped(entry: Entry, begin: int, end: int) -> np.ndarray | None:
    """The bytes of elements `begin` to `end` (flat, row-major) as read-only uint8; memory only as long as it is held.

    None where that cannot be done (another system, a damaged or unaligned file): then they are read as usual.
    """
    size = entry.dtype.itemsize
    first, length = entry.offset + begin * size, (end - begin) * size
    if first % size or not length:
        return None
    start, page = first - first % _HUGE, first - first % mmap.PAGESIZE
    try:
        with open(entry.file, "rb") as file:
            end = min(-(-(first + length) // _HUGE) * _HUGE, os.fstat(file.fileno()).st_size)
            memory = mmap.mmap(file.fileno(), end - start, offset=start, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    window = np.frombuffer(memory, np.uint8)
    found = window[first - start : first - start + length]
    place, needed = window.ctypes.data + page - start, first + length - page
    if len(found) < length or _libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(needed), _POPULATE_READ):
        return None
    return found

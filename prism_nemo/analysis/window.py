"""Elements of a tensor as mapped memory: what lies in the page cache is counted where it lies, without a copy."""

import ctypes
import mmap

import numpy as np

from prism_nemo.checkpoints.hf_folder import Entry

_POPULATE_READ = 22
"""Of Linux 5.14 and later: brings all pages in, and reports what cannot be read instead of killing the process."""
_libc = ctypes.CDLL(None, use_errno=True)


def mapped(entry: Entry, begin: int, end: int) -> np.ndarray | None:
    """The bytes of elements `begin` to `end` (flat, row-major) as read-only uint8; memory only as long as it is held.

    None where that cannot be done (another system, a damaged or unaligned file): then they are read as usual.
    """
    size = entry.dtype.itemsize
    first, length = entry.offset + begin * size, (end - begin) * size
    before = first % mmap.ALLOCATIONGRANULARITY
    if first % size or not length:
        return None
    try:
        with open(entry.file, "rb") as file:
            memory = mmap.mmap(file.fileno(), before + length, offset=first - before, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    found = np.frombuffer(memory, np.uint8)
    if _libc.madvise(ctypes.c_void_p(found.ctypes.data), ctypes.c_size_t(len(found)), _POPULATE_READ):
        return None
    return found[before:]

"""Memory of a process that converts: large tensors come and go, so what is freed is kept for the next one."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""glibc, malloc.h."""


def keep_freed_memory() -> None:
    """Let malloc take large blocks from its heap instead of fresh pages, whose clearing costs more than the copying.

    For the whole process, so call it in one that ends with the conversion. Does nothing without glibc.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 1 << 26)):
            mallopt(parameter, value)

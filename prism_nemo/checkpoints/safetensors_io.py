"""Ranges of tensors in safetensors files, read and written by several threads: memory of pieces, never of tensors."""

import contextlib
import errno
import os
import threading
from pathlib import Path

import numpy as np
import xxhash

from prism_nemo.checkpoints.hf_folder import Entry, Planned, cut, header_bytes, read_header, write_index
from prism_nemo.errors import InputError

PAGE = 4096
"""What writes past the page cache begin and end at, in the file and in memory."""
_DIRECT = getattr(os, "O_DIRECT", 0)
"""Where the system has it: gigabytes that are written once would push from the page cache what is still to be read."""


class Opened(contextlib.ExitStack):
    """Files opened once and closed with the block; any thread may read and write at any place."""

    def __init__(self) -> None:
        super().__init__()
        self._descriptors: dict[tuple[Path, int], int] = {}
        self._lock = threading.Lock()

    def descriptor(self, file: Path, flags: int) -> int:
        with self._lock:
            if (file, flags) not in self._descriptors:
                self._descriptors[file, flags] = descriptor = os.open(file, flags)
                self.callback(os.close, descriptor)
            return self._descriptors[file, flags]

    def sync(self) -> None:
        """Put what was written so far on the disk."""
        for (_, flags), descriptor in list(self._descriptors.items()):
            if flags & os.O_WRONLY:
                os.fsync(descriptor)


def read_elements(
    entry: Entry, begin: int, end: int, out: np.ndarray | None = None, opened: Opened | None = None
) -> np.ndarray:
    """The bytes of elements `begin` to `end` (flat, row-major) as uint8, into `out` where it is given.

    Raises InputError when the file ends early.
    """
    size = entry.dtype.itemsize
    out = np.empty((end - begin) * size, dtype=np.uint8) if out is None else out
    with contextlib.nullcontext(opened) if opened else Opened() as files:
        descriptor, done = files.descriptor(entry.file, os.O_RDONLY), 0
        while done < out.size:
            got = os.preadv(descriptor, [memoryview(out)[done:]], entry.offset + begin * size + done)
            if not got:
                raise InputError(f"{entry.file} ends inside {entry.name}; fetch or write it again")
            done += got
    return out


def for_writing(memory: np.ndarray, entry: Entry, begin: int, count: int) -> np.ndarray:
    """The part of `memory` (uint8) for `count` elements from `begin` whose pages are those of their place in the file.

    `memory` has PAGE bytes more than they need.
    """
    size = entry.dtype.itemsize
    before = (entry.offset + begin * size - memory.ctypes.data) % PAGE
    return memory[before : before + count * size]


def write_elements(entry: Entry, begin: int, data: np.ndarray, opened: Opened) -> None:
    """Write bytes (uint8) from element `begin` of a laid-out tensor.

    From memory that `for_writing` chose whole pages go past the page cache, if the file system can do that.
    """
    offset = entry.offset + begin * entry.dtype.itemsize
    first, last = -offset % PAGE, data.size - (offset + data.size) % PAGE
    alike = data.ctypes.data % PAGE == offset % PAGE
    if not (alike and first < last and _write_past_cache(entry.file, data[first:last], offset + first, opened)):
        first = last = data.size
    descriptor = opened.descriptor(entry.file, os.O_WRONLY)
    _write(descriptor, data[:first], offset)
    _write(descriptor, data[last:], offset + last)


def _write_past_cache(file: Path, data: np.ndarray, offset: int, opened: Opened) -> bool:
    """Returns False where the file system refuses that."""
    if not _DIRECT:
        return False
    try:
        _write(opened.descriptor(file, os.O_WRONLY | _DIRECT), data, offset)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _write(descriptor: int, data: np.ndarray, offset: int) -> None:
    done = 0
    while done < data.size:
        done += os.pwrite(descriptor, memoryview(data)[done:], offset + done)


class WrittenHashes:
    """xxh3_128 of files whose tensors come by in their order: what was just written need not be read again."""

    def __init__(self) -> None:
        self._digests: dict[Path, xxhash.xxh3_128] = {}
        self._seen: dict[Path, int] = {}

    def add(self, entry: Entry, begin: int, data: np.ndarray) -> None:
        """The bytes from element `begin` on; before the first ones of a file its header is taken from the file."""
        file, offset = entry.file, entry.offset + begin * entry.dtype.itemsize
        if file not in self._digests:
            with open(file, "rb") as source:
                self._digests[file] = xxhash.xxh3_128(source.read(offset))
        elif self._seen[file] != offset:
            raise ValueError(f"{entry.name} in {file} comes out of order")
        self._digests[file].update(data)
        self._seen[file] = offset + data.size

    def by_file(self) -> dict[Path, str]:
        return {file: digest.hexdigest() for file, digest in self._digests.items()}


def lay_out(directory: Path, planned: list[Planned], *, max_shard_bytes: int = 5_000_000_000) -> dict[str, Entry]:
    """Create the files of a checkpoint with headers and index, the data still to come; returns each tensor's place.

    The data may then be written in any order with `write_elements`; until then they are zeros.
    """
    shards = cut(planned, max_shard_bytes)
    places: dict[str, Entry] = {}
    for name, shard in shards.items():
        head = header_bytes(shard)
        with open(directory / name, "wb") as file:
            file.write(head)
            file.truncate(len(head) + sum(plan.nbytes for plan in shard))
        places |= {entry.name: entry for entry in read_header(directory / name)}
    write_index(directory, shards)
    return places

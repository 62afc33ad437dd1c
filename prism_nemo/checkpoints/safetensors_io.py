"""Ranges of tensors in safetensors files, read and written by several threads: memory of pieces, never of tensors."""

import contextlib
import os
import threading
from pathlib import Path

import numpy as np

from prism_nemo.checkpoints.hf_folder import Entry, Planned, cut, header_bytes, read_header, write_index
from prism_nemo.errors import InputError


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
            if flags == os.O_WRONLY:
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


def write_elements(entry: Entry, begin: int, data: np.ndarray, opened: Opened) -> None:
    """Write bytes (uint8) from element `begin` of a laid-out tensor."""
    descriptor = opened.descriptor(entry.file, os.O_WRONLY)
    offset, done = entry.offset + begin * entry.dtype.itemsize, 0
    while done < data.size:
        done += os.pwrite(descriptor, memoryview(data)[done:], offset + done)


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

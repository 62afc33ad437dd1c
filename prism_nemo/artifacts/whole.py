"""One file, written whole or not at all."""

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, text: str, *, durable: bool = False) -> None:
    """Put `text` (UTF-8) at `path`: a reader, or a kill at any time, finds all of it or what stood there before.

    One writer at a time. `durable`: on the disk before it returns.
    """
    draft = draft_of(path)
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(draft, path)
    if durable:
        _sync(path.parent)


def draft_of(path: Path) -> Path:
    """What a kill inside `write_whole` may leave beside `path`; the next call takes its place."""
    return path.with_name(f".{path.name}.tmp")


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems refuse to sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

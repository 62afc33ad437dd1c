"""What the disk refuses is no bug: one line, and what was finished stays."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from prism_nemo.errors import InputError, PrismError

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """For a block that makes `out`: PrismError when disk space or quota runs out, InputError for a forbidden place."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise PrismError(f"no space left for {out}; free some and run the same command again") from None
        if error.errno in FORBIDDEN:
            raise InputError(f"{error.filename or out}: {error.strerror}") from None
        raise

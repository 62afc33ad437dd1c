"""A full disk is no bug: one line, and what was finished stays."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from prism_nemo.errors import PrismError


@contextlib.contextmanager
def space_for(out: Path) -> Iterator[None]:
    """Raise PrismError when the block runs out of disk space or quota while it makes `out`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PrismError(f"no space left for {out}; free some and run the same command again") from None

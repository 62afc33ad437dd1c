"""The standard library's own sources, in a fixed order."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "pydoc_data",
    "__pycache__",
    "encodings",
    "turtledemo",
}
LONGEST = 200_000
"""Characters; the few longer files are tables."""


def sources() -> Iterator[str]:
    """That of every module that is readable UTF-8, sorted by name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if LEFT_OUT.intersection(path.relative_to(root).parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if 0 < len(source) <= LONGEST:
            yield source

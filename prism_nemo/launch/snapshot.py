"""The code that a job runs: copied by content, uncommitted changes included, into a folder named by its hash."""

import os
import shutil
import subprocess
from pathlib import Path

from prism_nemo.artifacts import file_hash, fingerprint
from prism_nemo.errors import InputError

ROOT = Path(__file__).parents[2]
NEEDED = ("prism_nemo", "recipes", "data_prep", "slurm")
"""What a stage reads of a checkout."""
LIMIT = 64 << 20
"""Bytes; more is not code, and something is in the wrong place."""


def snapshot(folder: Path, root: Path = ROOT) -> Path:
    """Copy the running code to FOLDER/code-HASH/code and return FOLDER/code-HASH; a copy that is there is used again.

    In a checkout: tracked files as they are now, and new ones that git does not ignore. Without git, as in an unpacked
    archive or the image: all files of NEEDED that are there.
    Raises InputError when git cannot be asked or the code is larger than LIMIT.
    """
    files = _files(root)
    size = sum((root / name).stat().st_size for name in files)
    if size > LIMIT:
        big = max(files, key=lambda name: (root / name).stat().st_size)
        raise InputError(
            f"the code to send is {size >> 20} MiB, more than {LIMIT >> 20}; the largest file is {root / big}:"
            " move it away or add it to .gitignore"
        )
    mark = fingerprint({name: file_hash(root / name) for name in files})[:16]
    target = folder / f"code-{mark}"
    if target.is_dir():
        return target
    partial = folder / f".code-{mark}.{os.getpid()}"
    for name in files:
        copy = partial / "code" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, copy)
    if target.is_dir():  # another submission was faster
        shutil.rmtree(partial)
    else:
        os.rename(partial, target)
    return target


def _files(root: Path) -> list[str]:
    if not (root / ".git").exists():
        found = (path for name in NEEDED for path in (root / name).rglob("*"))
        return sorted(
            str(path.relative_to(root)) for path in found if path.is_file() and "__pycache__" not in path.parts
        )
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *NEEDED]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"") or str(error).encode()
        raise InputError(
            f"git cannot list the code in {root}, so it cannot be sent: {reason.decode().strip()}"
        ) from None
    names = {name for name in listed.decode().split("\0") if name}
    return sorted(name for name in names if (root / name).is_file())

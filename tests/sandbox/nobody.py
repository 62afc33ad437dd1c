"""Running a script of these tests as an ordinary user, where the tests themselves run as root."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import prism_nemo
from prism_nemo.sandbox import interpreter


def as_nobody(script: Path, room: Path) -> list[dict[str, Any]]:
    """The JSON lines that the script prints when `nobody` runs it from a copy of the package in `room`."""
    if os.geteuid() != 0:
        pytest.skip("the tests already run as an ordinary user")
    package = Path(prism_nemo.__file__).parent
    shutil.copytree(package, room / "prism_nemo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(script, room)
    for folder in (room, *room.parents):
        if folder.stat().st_uid == 0 and folder.name.startswith(("nobody", "pytest", "popen")):
            folder.chmod(0o755)
    python = interpreter.prefix() / interpreter.executable()
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LD_LIBRARY_PATH": f"{python.parents[1]}/lib"}
    done = subprocess.run(
        [*drop, python, "-s", room / script.name],
        env=environment | {"PYTHONPATH": str(room)},
        cwd=room,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]

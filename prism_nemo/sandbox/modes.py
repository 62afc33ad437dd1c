"""Which walls this machine can build, and the command line that builds them."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from prism_nemo.errors import InputError
from prism_nemo.sandbox import interpreter
from prism_nemo.sandbox.limits import Limits, Mode

VARIABLE = "PRISM_SANDBOX"
NOBODY = 65534
BOX = "/box"
"""The program's working directory, home and /tmp."""
PYTHON = "/python"
SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
DEVICES = ("/dev/null", "/dev/urandom")
"""As few as programs need: every mount costs a start about 0.3 ms."""
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": BOX,
    "TMPDIR": BOX,
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


def asked_mode() -> Mode:
    """The mode the environment variable PRISM_SANDBOX names; bubblewrap without it. Raises InputError for another."""
    name = os.environ.get(VARIABLE, Mode.BUBBLEWRAP)
    try:
        return Mode(name)
    except ValueError:
        raise InputError(f"{VARIABLE}={name!r}: known modes are {', '.join(Mode)}") from None


def drop_rights() -> list[str]:
    """Root becomes `nobody` first: the kernel's process limit does not bind root, not even in a user namespace."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--"]


def limit_resources(limits: Limits, mode: Mode) -> list[str]:
    """prlimit, run inside the walls. bubblewrap's own first process counts as one more."""
    # without a user namespace the count is over all processes of that user, so it can only stop the worst
    count = limits.threads + 1 if mode is Mode.BUBBLEWRAP else 1024
    return [
        "prlimit",
        f"--as={limits.memory_bytes}",
        f"--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}",
        f"--nproc={count}",
        f"--nofile={limits.open_files}",
        f"--fsize={limits.disk_bytes}",
        "--core=0",
        "--",
    ]


@functools.cache
def _walls() -> list[str]:
    """The part of bubblewrap's arguments that never changes: what of the system can be seen, read-only."""
    arguments = ["--unshare-all", "--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox"]
    arguments += ["--die-with-parent", "--new-session", "--clearenv", "--ro-bind", "/usr", "/usr"]
    for folder in map(Path, SYSTEM_FOLDERS):
        if folder.is_symlink():
            arguments += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            arguments += ["--ro-bind", str(folder), str(folder)]
    for device in DEVICES:
        arguments += ["--dev-bind", device, device]
    prefix = interpreter.prefix()
    if prefix == Path("/usr"):
        arguments += ["--symlink", "usr", PYTHON]
    else:
        arguments += ["--ro-bind", str(prefix), PYTHON, "--setenv", "LD_LIBRARY_PATH", f"{PYTHON}/lib"]
    for name, value in ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    return arguments


def bubblewrap(limits: Limits, *, filter_fd: int, files: Mapping[str, int]) -> list[str]:
    """bubblewrap's command line up to the program. `files`: relative name -> file descriptor with the content."""
    arguments = [*drop_rights(), "bwrap", *_walls()]
    arguments += ["--size", str(limits.disk_bytes), "--tmpfs", BOX, "--symlink", BOX.lstrip("/"), "/tmp"]
    for name, handle in files.items():
        arguments += ["--perms", "0755", "--file", str(handle), f"{BOX}/{name}"]
    arguments += ["--remount-ro", "/", "--chdir", BOX, "--seccomp", str(filter_fd), "--"]
    return arguments


def python_command(mode: Mode) -> list[str]:
    """The interpreter as the program sees it, deaf to user folders and the current directory."""
    root = PYTHON if mode is Mode.BUBBLEWRAP else str(interpreter.prefix())
    return [f"{root}/{interpreter.executable()}", "-s", "-S", "-P"]


def missing_tools(mode: Mode) -> str | None:
    """The first program that a mode needs and this machine lacks."""
    needed = ["prlimit"] + (["setpriv"] if os.geteuid() == 0 else [])
    needed += ["bwrap"] if mode is Mode.BUBBLEWRAP else []
    return next((tool for tool in needed if shutil.which(tool) is None), None)


def make_box(files: Mapping[str, bytes]) -> Path:
    """The weaker mode's working directory on the host, open to the user the program runs as."""
    box = Path(tempfile.mkdtemp(prefix="prism-box-"))
    for name, content in files.items():
        path = box / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)
    if os.geteuid() == 0:
        for path in (box, *box.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    return box


def remove_box(box: Path) -> None:
    """Whatever the program made of it; `shutil.rmtree` raises RecursionError on thousands of nested folders."""
    if os.geteuid() != 0:  # folders that the program closed to its own user
        subprocess.run(["chmod", "-R", "u+rwX", "--", box], stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", "--", box], stderr=subprocess.DEVNULL)

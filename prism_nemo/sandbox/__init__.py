"""The sandbox: runs code that a model wrote. Hostile until the opposite is proved, which it never is.

    result = run("print(input())", stdin="7")
    result.outcome, result.stdout

A program gets its own namespaces, no network, none of the caller's environment, files or file descriptors, an allowlist
of system calls, hard limits, and a fresh directory that goes away. `active_mode()` says what this machine can do; the
weaker mode is used only when PRISM_SANDBOX=rlimits asks for it. It does not compare results: what was expected never
enters, the caller compares outside.
"""

import functools
import shutil
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

from prism_nemo.errors import InputError
from prism_nemo.sandbox import modes
from prism_nemo.sandbox.limits import Limits, Mode, Result
from prism_nemo.sandbox.process import execute, execute_pair

__all__ = [
    "Limits",
    "Mode",
    "Result",
    "active_mode",
    "compile_cpp",
    "require",
    "require_compiler",
    "run",
    "run_binary",
    "run_pair",
    "why_not",
]

# Names that `site` would give; run as the main module, so that pickling and dataclasses find their classes.
RUN_PROGRAM = (
    "import sys, builtins; sys.path.insert(0, ''); builtins.exit = builtins.quit = sys.exit; del builtins, sys; "
    "exec(compile(open('program.py', 'rb').read(), 'program.py', 'exec'))"
)
COMPILER = ("/usr/bin/g++", "-std=c++17", "-O2", "-s", "-o", "program", "program.cpp")
COMPILE_LIMITS = Limits(
    wall_seconds=30.0, cpu_seconds=20, processes=8, threads=16, output_bytes=16 << 20, disk_bytes=128 << 20
)


def run(
    code: str,
    *,
    stdin: str = "",
    files: Mapping[str, str | bytes] | None = None,
    language: Literal["python", "cpp"] = "python",
    limits: Limits | None = None,
) -> Result:
    """Run a program in a fresh sandbox and return what it did; never raises on what the program does.

    `files`: more files for its working directory, by relative name. A C++ program is compiled first, in a sandbox too;
    one that does not compile `failed`, with the compiler's words as `stderr`.
    Raises InputError when this machine has no sandbox of the asked mode, or a file name leaves the directory.
    """
    limits = limits or Limits()
    if language == "cpp":
        binary = compile_cpp(code)
        return binary if isinstance(binary, Result) else run_binary(binary, stdin=stdin, files=files, limits=limits)
    mode = require()
    content = {**_contents(files), "program.py": _encode(code)}
    command = [*modes.python_command(mode), "-c", RUN_PROGRAM]
    return execute(command, stdin=_encode(stdin), files=content, limits=limits, mode=mode)[0]


def compile_cpp(code: str) -> bytes | Result:
    """The program a C++17 source compiles to, or the failed compiler's result. Raises InputError without g++."""
    mode = require()
    require_compiler()
    script = f"{' '.join(COMPILER)} >&2 && cat program"
    command = ["/bin/sh", "-c", script]
    result, output = execute(command, stdin=b"", files={"program.cpp": _encode(code)}, limits=COMPILE_LIMITS, mode=mode)
    return output if result.ok else result


def run_binary(
    binary: bytes,
    *,
    stdin: str = "",
    files: Mapping[str, str | bytes] | None = None,
    limits: Limits | None = None,
) -> Result:
    """Run a compiled program; see `run`."""
    mode = require()
    content = {**_contents(files), "program": binary}
    return execute(["./program"], stdin=_encode(stdin), files=content, limits=limits or Limits(), mode=mode)[0]


def run_pair(
    judge: str,
    program: str,
    *,
    judge_files: Mapping[str, str | bytes],
    program_files: Mapping[str, str | bytes],
    limits: Limits | None = None,
) -> Result:
    """Two Python programs in two sandboxes: what one prints, the other reads; the judge's standard error comes back.

    For tests that have to call a hostile program's functions: the test runs where the hostile code is not.
    """
    mode = require()
    command = [*modes.python_command(mode), "-c", RUN_PROGRAM]
    return execute_pair(
        command,
        command,
        judge_files={**_contents(judge_files), "program.py": _encode(judge)},
        program_files={**_contents(program_files), "program.py": _encode(program)},
        limits=limits or Limits(),
        mode=mode,
    )


def active_mode() -> Mode | None:
    """The mode programs run in on this machine now; None when the asked one cannot be had (`why_not` says why)."""
    mode = modes.asked_mode()
    return mode if _fault(mode) is None else None


def why_not() -> str | None:
    """Why the asked mode cannot be had, in one line with what to do; None when it can."""
    return _fault(modes.asked_mode())


def require() -> Mode:
    """The active mode. Raises InputError, with what to do, when the asked one cannot be had: never a weaker one."""
    mode = modes.asked_mode()
    fault = _fault(mode)
    if fault:
        raise InputError(fault)
    return mode


def require_compiler() -> None:
    """Raises InputError, with what to do, when this machine has no C++ compiler."""
    if shutil.which(COMPILER[0]) is None:
        raise InputError(f"C++ problems need {COMPILER[0]}; install it with: apt-get install g++")


@functools.cache
def _fault(mode: Mode) -> str | None:
    """Tried once per process with a real program, since user namespaces may be forbidden although all is installed."""
    weaker = f"; or ask for the weaker mode by name: {modes.VARIABLE}={Mode.RLIMITS} (walls off nothing but resources)"
    advice = weaker if mode is Mode.BUBBLEWRAP else ""
    missing = modes.missing_tools(mode)
    if missing:
        package = {"bwrap": "bubblewrap"}.get(missing, "util-linux")
        return f"running code needs {missing}; install it with: apt-get install {package}{advice}"
    try:
        command = [*modes.python_command(mode), "-c", "print(6 * 7)"]
        result, _ = execute(command, stdin=b"", files={}, limits=Limits(wall_seconds=60.0), mode=mode)
    except OSError as error:
        return f"the {mode} sandbox cannot start: {error}{advice}"
    if result.stdout != "42\n":
        reason = (result.stderr.strip().splitlines() or [result.outcome])[-1][:200]
        return f"the {mode} sandbox does not work here: {reason}{advice}"
    return None


def _contents(files: Mapping[str, str | bytes] | None) -> dict[str, bytes]:
    contents = {}
    for name, content in (files or {}).items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise InputError(f"sandbox file {name!r}: give a relative name inside the program's directory")
        contents[str(path)] = content if isinstance(content, bytes) else _encode(content)
    return contents


def _encode(text: str) -> bytes:
    """Lone surrogates, which a model's text may hold, become question marks."""
    return text.encode(errors="replace")

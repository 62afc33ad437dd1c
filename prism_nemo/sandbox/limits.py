"""What a program may use, and what came of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Mode(StrEnum):
    """How strong the walls are."""

    BUBBLEWRAP = "bubblewrap"
    """Own user, process, network, mount and IPC namespaces, a system-call allowlist, resource limits."""
    RLIMITS = "rlimits"
    """Resource limits and an empty environment only: no wall around files, network or processes. By name only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one program. Each is a hard stop; the parent enforces wall time and output, the kernel the rest."""

    wall_seconds: float = 12.0
    cpu_seconds: int = 6
    memory_bytes: int = 1 << 30
    """Address space of a process."""
    processes: int = 1
    """1: the program cannot start another process at all. More: so many, each with its own memory limit."""
    threads: int = 16
    """Threads, and processes if there may be several, all together."""
    open_files: int = 64
    output_bytes: int = 1 << 20
    """Of standard output, and of standard error; the program is killed beyond it."""
    disk_bytes: int = 64 << 20
    """Of the temporary directory (it is memory); also the largest file. A file's own entry, about 1 KB of the kernel's
    memory, is bounded by the CPU time alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a program did."""

    outcome: Literal["ok", "failed", "timeout", "output_limit", "not_started"]
    """`failed`: it ended with another status than 0, by a signal or by a limit of the kernel's."""
    exit_code: int | None
    """As a shell gives it (128 + n for signal n); None when it was killed by the parent."""
    stdout: str
    """Up to the output limit; bytes that are no UTF-8 are replaced."""
    stderr: str
    seconds: float
    """Wall time, start of the sandbox included."""

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

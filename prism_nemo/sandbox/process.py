"""Start a sandboxed command, feed it, read what it says within limits, and leave nothing of it alive."""

import contextlib
import fcntl
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Literal

from prism_nemo.sandbox import interpreter, modes, seccomp
from prism_nemo.sandbox.limits import Limits, Mode, Result

PIECE = 1 << 16
OUT_OF_CPU = 128 + signal.SIGXCPU


@contextlib.contextmanager
def started(
    command: Sequence[str], *, stdin: int, stdout: int, files: Mapping[str, bytes], limits: Limits, mode: Mode
) -> Iterator[subprocess.Popen[bytes]]:
    """A running command behind the walls of `mode`; killed with all it started when the block ends.

    `stdin` and `stdout` are file descriptors or `subprocess` constants; standard error is a pipe.
    """
    with contextlib.ExitStack() as stack:
        if mode is Mode.BUBBLEWRAP:
            handles = {name: stack.enter_context(sealed(content)) for name, content in files.items()}
            filter_fd = stack.enter_context(sealed(seccomp.program(processes=limits.processes > 1)))
            walls = modes.bubblewrap(limits, filter_fd=filter_fd, files=handles)
            passed, folder, environment = (
                (*handles.values(), filter_fd),
                "/",
                {"PATH": os.environ.get("PATH", "/usr/bin")},
            )
        else:
            box = modes.make_box(files)
            stack.callback(modes.remove_box, box)
            walls, passed, folder = modes.drop_rights(), (), str(box)
            libraries = str(interpreter.prefix() / "lib")
            environment = {**modes.ENVIRONMENT, "HOME": folder, "TMPDIR": folder, "LD_LIBRARY_PATH": libraries}
        process = subprocess.Popen(
            [*walls, *modes.limit_resources(limits, mode), *command],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=passed,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        stack.callback(_end, process)
        yield process


@contextlib.contextmanager
def sealed(content: bytes) -> Iterator[int]:
    """A file descriptor with this content, at its start, that nobody can write to."""
    handle = os.memfd_create("content", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.lseek(handle, 0, os.SEEK_SET)
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield handle
    finally:
        os.close(handle)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group (bubblewrap takes its whole process namespace with it) and collect the child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def execute(
    command: Sequence[str], *, stdin: bytes, files: Mapping[str, bytes], limits: Limits, mode: Mode
) -> tuple[Result, bytes]:
    """Run a command to its end or its limits; the result, and standard output as bytes. Never raises on a program."""
    begun = time.monotonic()
    with (
        sealed(stdin) as source,
        started(command, stdin=source, stdout=subprocess.PIPE, files=files, limits=limits, mode=mode) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        streams = {process.stdout: bytearray(), process.stderr: bytearray()}
        stopped = read_streams(streams, limits.output_bytes, begun + limits.wall_seconds)
        if stopped is None and not _ends_by(process, begun + limits.wall_seconds):
            stopped = "timeout"
        code = None if stopped else _shell_code(process.returncode)
        stopped = stopped or ("timeout" if code == OUT_OF_CPU else None)
        output, errors = (bytes(buffer[: limits.output_bytes]) for buffer in streams.values())
    result = Result(
        outcome=stopped or ("ok" if code == 0 else "failed"),
        exit_code=code,
        stdout=output.decode(errors="replace"),
        stderr=errors.decode(errors="replace"),
        seconds=time.monotonic() - begun,
    )
    return result, output


def _ends_by(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the end; `Popen.wait(timeout)` looks only now and then, with pauses that grow to 50 ms."""
    with contextlib.ExitStack() as stack:
        handle = os.pidfd_open(process.pid)
        stack.callback(os.close, handle)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(max(deadline - time.monotonic(), 0.01) * 1000):
            return False
    process.wait()
    return True


def read_streams(
    streams: dict[IO[bytes], bytearray], limit: int, deadline: float
) -> Literal["timeout", "output_limit"] | None:
    """Read pipes to their ends; `timeout` or `output_limit` when that is not to be had, else None."""
    with selectors.DefaultSelector() as selector:
        for stream, buffer in streams.items():
            selector.register(stream, selectors.EVENT_READ, buffer)
        while selector.get_map():
            left = deadline - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                return "timeout"
            for key, _ in ready:
                piece = os.read(key.fd, PIECE)
                if not piece:
                    selector.unregister(key.fileobj)
                key.data.extend(piece)
                if len(key.data) > limit:
                    return "output_limit"
    return None


def _shell_code(code: int) -> int:
    return 128 - code if code < 0 else code


def execute_pair(
    judge: Sequence[str],
    program: Sequence[str],
    *,
    judge_files: Mapping[str, bytes],
    program_files: Mapping[str, bytes],
    limits: Limits,
    mode: Mode,
) -> Result:
    """Run two commands, each in a sandbox of its own, whose only link is that either reads what the other writes.

    The result is the judge's: its standard error is the report (`stdout` of the Result). Nothing of the program but
    bytes on that link reaches the judge. Both end when the judge ends or at the limits.
    """
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        to_program, from_judge = _pipe(stack)
        to_judge, from_program = _pipe(stack)
        judging = stack.enter_context(
            started(judge, stdin=to_judge, stdout=from_judge, files=judge_files, limits=limits, mode=mode)
        )
        stack.enter_context(
            started(program, stdin=to_program, stdout=from_program, files=program_files, limits=limits, mode=mode)
        )
        for handle in (to_program, from_judge, to_judge, from_program):
            os.close(handle)
        assert judging.stderr is not None
        report = bytearray()
        stopped = read_streams({judging.stderr: report}, limits.output_bytes, begun + limits.wall_seconds)
    return Result(
        outcome=stopped or "ok",
        exit_code=None,
        stdout=report[: limits.output_bytes].decode(errors="replace"),
        stderr="",
        seconds=time.monotonic() - begun,
    )


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """Both ends, closed again if the block fails before they are handed over."""
    ends = os.pipe()

    def close() -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)

    stack.callback(close)
    return ends

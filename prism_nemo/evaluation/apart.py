"""Work in a process of its own, whose end gives back what it held: a vLLM engine keeps its GPU memory until then."""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from prism_nemo.errors import PrismError

Progress = Callable[[str, int, int], None]


def apart[Result](
    work: Callable[..., Result], *arguments: Any, progress: Progress = lambda what, done, total: None, **options: Any
) -> Result:
    """`work(*arguments, progress=..., **options)` in a new process, which ends with this one.

    `work` is a module's function. Raises its PrismError, and PrismError when it fails otherwise or is killed.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(there, work, arguments, options))
    child.start()
    there.close()
    try:
        while True:
            kind, said = here.recv()
            if kind == "progress":
                progress(*said)
            elif kind == "error":
                raise said
            else:
                child.join()
                return said
    except EOFError:
        child.join()
        raise PrismError(f"{work.__name__}: its process ended without a result (exit code {child.exitcode})") from None
    finally:
        assert child.pid is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # and whatever it started that is left
        child.kill()
        child.join()


def _work(there: Connection, work: Callable[..., Any], arguments: Any, options: Any) -> None:
    os.setpgid(0, 0)  # with what it starts itself, so that all of it can be ended
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = work(*arguments, progress=lambda *said: there.send(("progress", said)), **options)
        there.send(("result", found))
    except PrismError as error:
        there.send(("error", error))
    except BaseException as error:
        traceback.print_exc()
        there.send(("error", PrismError(f"{work.__name__} failed in its process: {type(error).__name__}: {error}")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)

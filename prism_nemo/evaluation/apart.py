"""Work in a process of its own, whose end gives back what it held: a vLLM engine keeps its GPU memory until then."""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from prism_nemo.errors import PrismError

Progress = Callable[[str, int, int], None]
APART = ("vllm",)
"""Backends that hold a GPU until their process ends."""


def side_by_side[Result](
    work: Callable[..., Result], calls: Sequence[Sequence[Any]], *, progress: Progress = lambda what, done, total: None
) -> list[Result]:
    """`work(*arguments, progress=...)` for each of `calls` at once, in new processes that end with this one.

    Returns the results in order. `work` is a module's function; `progress` is told the sums. The first error ends all:
    its PrismError is raised, and PrismError when one fails otherwise or is killed.
    """
    context = multiprocessing.get_context("spawn")
    children: dict[Connection, Any] = {}
    try:
        for arguments in calls:
            here, there = context.Pipe(duplex=False)
            children[here] = context.Process(target=_work, args=(there, work, arguments))
            children[here].start()
            there.close()
        found = _listen(work.__name__, children, progress)
        for child in children.values():
            child.join()
        return found
    finally:
        for child in children.values():
            _end(child)


def _listen(name: str, children: Mapping[Connection, Any], progress: Progress) -> list[Any]:
    found: dict[Connection, Any] = {}
    steps: dict[str, dict[Connection, tuple[int, int]]] = {}
    while len(found) < len(children):
        for ready in wait([here for here in children if here not in found]):
            assert isinstance(ready, Connection)
            try:
                kind, said = ready.recv()
            except EOFError:
                children[ready].join()
                code = children[ready].exitcode
                raise PrismError(f"{name}: its process ended without a result (exit code {code})") from None
            if kind == "error":
                raise said
            if kind == "result":
                found[ready] = said
            else:
                what, done, total = said
                told = steps.setdefault(what, {})
                told[ready] = done, total
                progress(what, sum(at for at, _ in told.values()), sum(of for _, of in told.values()))
    return [found[here] for here in children]


def _end(child: Any) -> None:
    """And what it started that is left."""
    if child.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()
        child.join()


def _work(there: Connection, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    os.setpgid(0, 0)  # with what it starts itself, so that all of it can be ended
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = work(*arguments, progress=lambda *said: there.send(("progress", said)))
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


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    return seen[: torch.cuda.device_count()]


def see_only(gpu: str) -> None:
    """Hide all other GPUs from this process, which has not looked at any yet; an empty name hides none."""
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

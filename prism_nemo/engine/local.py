"""Run a job, or any function, in processes of this machine with the engine prepared.

    from prism_nemo.engine import local
    local.warm()                                    # early: starts importing Megatron (10 s) in the background
    local.run_local(job, processes=2, on_progress=lambda line: print(line["step"], line["loss"]))
    value = local.call_local(function, argument, processes=2)      # rank 0's return value

All ranks are forked from one process that has imported Megatron, so a chain of runs pays for the import once. Ranks die
with their parent. Their output goes to log files; an error comes back as one line that names the log.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from prism_nemo.engine import progress
from prism_nemo.engine.check import check
from prism_nemo.engine.job import TrainJob
from prism_nemo.errors import PrismError, Stopped

_context = multiprocessing.get_context("forkserver")


def warm() -> None:
    """Start the process that imports Megatron, once, without waiting for it."""
    _context.set_forkserver_preload(["prism_nemo.engine.preload"])
    with _environment({"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}):
        multiprocessing.forkserver.ensure_running()


def run_local(job: TrainJob, processes: int = 1, on_progress: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Train `job` in `processes` ranks; `on_progress` gets every new line of progress.jsonl, in this process.

    SIGTERM and SIGUSR1 are passed on. Raises InputError, Stopped (saved; call again to go on) or PrismError.
    """
    from prism_nemo.engine.train import train

    check(job, processes)
    call_local(train, job, processes=processes, logs=Path(job.checkpoints) / "logs", on_line=on_progress)


def call_local(
    function: Callable[..., Any],
    *arguments: Any,
    processes: int = 1,
    logs: Path | None = None,
    on_line: Callable[[dict[str, Any]], None] | None = None,
) -> Any:
    """Call an importable function in every rank of a process group; the value that rank 0 returns.

    Arguments and value are pickled. `on_line` gets the progress lines of a training run. `logs`: folder for rank0.log,
    rank1.log, ...; a temporary one when not given.
    """
    warm()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prism-")))
        logs = logs or scratch
        logs.mkdir(parents=True, exist_ok=True)
        ranks = [
            _start(rank, processes, function, arguments, logs, scratch / "rendezvous") for rank in range(processes)
        ]
        stack.callback(_kill, ranks)
        asked = stack.enter_context(_signals_passed_on(ranks))
        value = _collect(ranks, logs, on_line)
        if asked.is_set():
            raise Stopped("stopped on request at the end of this step; the same command goes on")
        return value


class _Rank:
    """A child process and the pipe on which its outcome comes back."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe
        self.outcome: tuple[str, Any] | None = None


def _start(
    rank: int, size: int, function: Callable[..., Any], arguments: tuple[Any, ...], logs: Path, rendezvous: Path
) -> _Rank:
    ours, theirs = _context.Pipe(duplex=False)
    tracking = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    process = _context.Process(
        target=_child, args=(rank, size, function, arguments, logs, rendezvous, theirs, tracking)
    )
    process.start()
    theirs.close()
    return _Rank(process, ours)


def _collect(ranks: list[_Rank], logs: Path, on_line: Callable[[dict[str, Any]], None] | None) -> Any:
    """Wait for all ranks; rank 0's value. The first error ends all."""
    open_ranks = list(ranks)
    while open_ranks:
        ready = wait([rank.pipe for rank in open_ranks])
        for rank in [rank for rank in open_ranks if rank.pipe in ready]:
            kind, value = _receive(rank)
            if kind == "line":
                if on_line:
                    on_line(value)
                continue
            rank.outcome = (kind, value)
            open_ranks.remove(rank)
        failed = [rank for rank in ranks if rank.outcome and rank.outcome[0] != "value"]
        if failed and not _others_may_finish(failed, open_ranks):
            raise _error(_most_telling(failed), ranks, logs)
    for rank in ranks:
        rank.process.join()
    return ranks[0].outcome[1] if ranks[0].outcome else None


def _others_may_finish(failed: list[_Rank], open_ranks: list[_Rank]) -> bool:
    """After a stop on request the other ranks leave by themselves."""
    return bool(open_ranks) and all(rank.outcome and isinstance(rank.outcome[1], Stopped) for rank in failed)


def _receive(rank: _Rank) -> tuple[str, Any]:
    try:
        return pickle.loads(rank.pipe.recv_bytes())
    except EOFError:
        rank.process.join()
        return "died", rank.process.exitcode


def _most_telling(failed: list[_Rank]) -> _Rank:
    """A rank that said what went wrong before one that merely lost its neighbour."""
    order = {"error": 0, "crash": 1, "died": 2}
    return min(failed, key=lambda rank: order[rank.outcome[0]] if rank.outcome else 3)


def _error(rank: _Rank, ranks: list[_Rank], logs: Path) -> PrismError:
    kind, what = rank.outcome or ("died", None)
    if isinstance(what, PrismError):
        return what
    index = ranks.index(rank)
    log = f"; see {logs / f'rank{index}.log'}" if logs.is_dir() and "prism-" not in logs.name else ""
    if kind == "crash":
        return PrismError(f"rank {index} failed: {what}{log}")
    if what == -signal.SIGTERM:
        return Stopped("stopped on request before the first step; nothing is lost")
    cause = f"signal {signal.Signals(-what).name}" if what and what < 0 else f"exit code {what}"
    hint = " (out of memory?)" if what == -signal.SIGKILL else ""
    return PrismError(f"rank {index} died: {cause}{hint}{log}")


def _kill(ranks: list[_Rank]) -> None:
    for rank in ranks:
        if rank.process.is_alive():
            rank.process.kill()
        rank.process.join()
        rank.pipe.close()


@contextlib.contextmanager
def _signals_passed_on(ranks: list[_Rank]) -> Iterator[threading.Event]:
    """A first SIGTERM, SIGUSR1 or Ctrl-C asks the ranks to save and stop; a second Ctrl-C interrupts.

    Yields whether they were asked: ranks that were done by then do not say so.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()
        for rank in ranks:
            if rank.process.is_alive():
                rank.process.terminate()

    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _child(
    rank: int,
    size: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    logs: Path,
    rendezvous: Path,
    pipe: Connection,
    environment: dict[str, str],
) -> None:
    """`environment`: what a process forked from the warm one would have as it was when that one started."""
    os.environ.update(environment)
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    log = os.open(logs / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    progress.listener = lambda line: pipe.send_bytes(pickle.dumps(("line", line)))
    try:
        outcome = ("value", _call(rank, size, function, arguments, rendezvous))
    except PrismError as error:
        outcome = ("error", error)
    except BaseException as error:
        traceback.print_exc()
        outcome = ("crash", _one_line(error))
    pipe.send_bytes(pickle.dumps(outcome))
    pipe.close()
    sys.exit(0 if outcome[0] == "value" else 1)


def _call(rank: int, size: int, function: Callable[..., Any], arguments: tuple[Any, ...], rendezvous: Path) -> Any:
    local = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in local.items()})
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    from prism_nemo.engine.setup import join_process_group, prepare

    prepare()
    join_process_group(rank, size, rendezvous)
    return function(*arguments)


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])  # type: ignore[union-attr]
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the duration of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

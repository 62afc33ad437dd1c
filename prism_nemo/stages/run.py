"""Running a chain on this machine: what is up to date is skipped, what is stale is made anew."""

import contextlib
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prism_nemo.artifacts import path_fingerprint
from prism_nemo.errors import InputError, PrismError, Stopped
from prism_nemo.stages.stage import (
    Progress,
    Record,
    Stage,
    begin,
    read_record,
    refuse_different,
    situation,
    write_record,
)

SAVE_PROGRESS_SECONDS = 2.0


class Screen(Progress):
    """What a run shows: `start`, `__call__` while it works, `end`. See `prism_nemo.cli.screen`."""

    def start(self, stage: Stage, number: int, count: int) -> None: ...

    def skip(self, stage: Stage, number: int, count: int) -> None: ...

    def end(self, record: Record) -> None: ...


def select(stages: list[Stage], first: str | None, last: str | None) -> list[Stage]:
    """The stages from `first` to `last`, both included. Raises InputError for a name that is not in the chain."""
    names = [stage.name for stage in stages]
    for name in (first, last):
        if name is not None and name not in names:
            raise InputError(f"no stage '{name}' in this recipe; its stages are {', '.join(names)}")
    start = names.index(first) if first else 0
    end = names.index(last) + 1 if last else len(names)
    if start >= end:
        raise InputError(f"--from {first} comes after --to {last}; the order is {', '.join(names)}")
    return stages[start:end]


def run_chain(
    stages: list[Stage],
    run: Path,
    screen: Screen,
    *,
    force: bool = False,
    describe: Callable[[], None] = lambda: None,
    warm: Callable[[], None],
) -> None:
    """Run the given stages in order in the folder `run`.

    `describe` writes down what the run is, once nothing speaks against it; `warm` is called once before the first stage
    that has work to do. Raises InputError before anything is written or removed when an artifact was made differently
    (unless `force`) or an input from outside the selection is missing; a failing stage leaves a record that says why,
    and its error propagates.
    """
    with _locked(run):
        _refuse(stages, run, force)
        describe()
        for stage in stages if force else ():
            shutil.rmtree(run / stage.name, ignore_errors=True)
        warmed = False
        for number, stage in enumerate(stages, 1):
            now = situation(stage, run)
            if now == "up to date":
                screen.skip(stage, number, len(stages))
                continue
            if not warmed:
                warm()
                warmed = True
            if now == "stale":
                shutil.rmtree(run / stage.name)
            screen.start(stage, number, len(stages))
            screen.end(_run_one(stage, run, screen))


def from_first_to_do(stages: list[Stage], run: Path, *, force: bool = False) -> list[Stage]:
    """The stages from the first on that has work to do: those before it need no job of their own.

    Raises InputError where `run_chain` would before any work.
    """
    done = 0
    if not force:
        done = next((n for n, stage in enumerate(stages) if situation(stage, run) != "up to date"), len(stages))
    _refuse(stages[done:], run, force)
    return stages[done:]


def run_share(stages: list[Stage], run: Path, share: tuple[int, int]) -> None:
    """Do one share of the work of a single stage, beside others that do theirs; no record is kept.

    Raises InputError when the work of the selected stages cannot be shared.
    """
    (stage, *others) = stages
    if others or stage.share is None:
        names = ", ".join(entry.name for entry in stages)
        raise InputError(f"--share is for one stage that makes token files; selected are {names}: use --from and --to")
    _check_inputs(stages, run)
    if situation(stage, run) == "to do":
        stage.share(run / stage.name, share)


def _refuse(stages: list[Stage], run: Path, force: bool) -> None:
    if not force:
        refuse_different(stages, run)
    _check_inputs(stages, run)


def _check_inputs(stages: list[Stage], run: Path) -> None:
    made = {run / stage.name for stage in stages}
    for stage in stages:
        for role, path in stage.inputs.items():
            inside = any(path == folder or path.is_relative_to(folder) for folder in made)
            if not inside and not path.exists():
                raise InputError(
                    f"stage {stage.name} needs {path} ({role}), which does not exist; run the stage before"
                )


def _run_one(stage: Stage, run: Path, screen: Screen) -> Record:
    record, before = begin(stage), read_record(run, stage.name)
    if before is not None and before.state != "done":
        record.earlier = before.earlier + before.seconds
    write_record(run, record)
    saved = time.monotonic()

    def progress(done: float, total: float, text: str = "") -> None:
        nonlocal saved
        record.done, record.total, record.message = done, total, text
        record.began = done if record.began is None else record.began
        screen(done, total, text)
        if time.monotonic() - saved > SAVE_PROGRESS_SECONDS:
            saved = time.monotonic()
            record.seconds = round(time.time() - record.started, 2)
            write_record(run, record)

    try:
        stage.run(run / stage.name, progress)
    except (Stopped, KeyboardInterrupt) as stop:
        _close(record, run, "stopped", str(stop) or "interrupted")
        raise
    except BaseException as error:
        _close(
            record,
            run,
            "failed",
            f"{type(error).__name__}: {error}" if not isinstance(error, PrismError) else str(error),
        )
        raise
    record.output = path_fingerprint(run / stage.name)
    _close(record, run, "done", record.message)
    return record


def _close(record: Record, run: Path, state: str, message: str) -> None:
    record.state, record.message = state, message  # type: ignore[assignment]
    record.seconds = round(time.time() - record.started, 2)
    write_record(run, record)


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    """One `prism run` at a time in a run's folder; the lock goes with the process."""
    run.mkdir(parents=True, exist_ok=True)
    with open(run / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another `prism run` works in {run}; wait for it, or give another --out") from None
        yield


def states(stages: list[Stage], run: Path) -> list[tuple[Stage, str, Record | None]]:
    """Each stage with its situation and record, for `prism status` and `--dry-run`."""
    return [(stage, situation(stage, run), read_record(run, stage.name)) for stage in stages]

"""A stage: one arrow of the chain, from artifacts to an artifact; and the record of what became of it."""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from prism_nemo.artifacts import changed, path_fingerprint, write_whole
from prism_nemo.errors import InputError

RECORDS = ".stages"
Situation = Literal["up to date", "to do", "stale", "different"]


class Progress(Protocol):
    """How far a stage is: `progress(done, total, "loss 2.31")`."""

    def __call__(self, done: float, total: float, text: str = "") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a run."""

    name: str
    """Also the folder of its artifact below the run."""
    does: str
    """In a few words, for plans and progress."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Role -> artifact of an earlier stage, or a path outside the run."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What decides the content besides the inputs; circumstances (ranks, workers) stay out."""
    run: Callable[[Path, Progress], None]
    """Publishes the artifact at the given path."""
    ranks: int = 1
    """Processes that share the work; more than one only for training and conversion."""
    share: Callable[[Path, tuple[int, int]], None] | None = None
    """Does share i of n of the work, i from 0, beside the artifact, so that `run` only joins them; any number of them
    may work at once. None: the work cannot be shared."""
    gpu: bool = True
    """Whether a queue should give it GPUs; False for data, conversions and tables."""


@dataclass(kw_only=True, slots=True)
class Record:
    """What is known of a stage of one run; `RUN/.stages/NAME.json`."""

    name: str
    state: Literal["running", "done", "failed", "stopped"]
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    """Role -> content fingerprint when the stage ran."""
    output: str = ""
    """Content fingerprint of what it made."""
    started: float = 0.0
    """Unix time, seconds."""
    seconds: float = 0.0
    """Since it started, to its end or to the last progress that was saved."""
    earlier: float = 0.0
    """Seconds of the processes before this one that stopped, failed or were killed."""
    gpus: int = 0
    """Devices that work on it where the run has GPUs: its ranks; 0: it needs none."""
    message: str = ""
    """The error, or where it stopped."""
    done: float = 0.0
    """How far it was, of `total`."""
    began: float | None = None
    """`done` when this process first said how far it is: a resumed stage does not begin at 0."""
    total: float = 0.0
    pid: int = 0
    host: str = ""


def record_path(run: Path, name: str) -> Path:
    return run / RECORDS / f"{name}.json"


def read_record(run: Path, name: str) -> Record | None:
    """The record of a stage, or None when it never ran or the record cannot be read."""
    try:
        return Record(**json.loads(record_path(run, name).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_record(run: Path, record: Record) -> None:
    path = record_path(run, record.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(record), indent=1))


def begin(stage: Stage) -> Record:
    """The record of a stage that starts now."""
    return Record(
        name=stage.name,
        state="running",
        parameters=plain(stage.parameters),
        inputs={role: path_fingerprint(path) for role, path in stage.inputs.items()},
        started=time.time(),
        gpus=stage.ranks if stage.gpu else 0,
        pid=os.getpid(),
        host=socket.gethostname(),
    )


def plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def situation(stage: Stage, run: Path) -> Situation:
    """How a stage's artifact stands to what is asked for.

    `stale`: an earlier stage was made anew since. `different`: it was made with other parameters or outside inputs.
    """
    folder, record = run / stage.name, read_record(run, stage.name)
    if not (folder / "artifact.json").is_file() or record is None or record.state != "done":
        return "to do"
    if record.parameters != plain(stage.parameters) or set(record.inputs) != set(stage.inputs):
        return "different"
    if record.output != path_fingerprint(folder):
        return "stale"
    changed = [role for role, path in stage.inputs.items() if _missing_or_changed(path, record.inputs[role])]
    if any(not stage.inputs[role].is_relative_to(run) for role in changed):
        return "different"
    return "stale" if changed else "up to date"


def _missing_or_changed(path: Path, before: str) -> bool:
    return not path.exists() or path_fingerprint(path) != before


def differences(stage: Stage, run: Path) -> str:
    """What an existing artifact was made with that is now asked otherwise; for the error message."""
    record = read_record(run, stage.name)
    if record is None:
        return "it has no record"
    found = list(changed(record.parameters, plain(stage.parameters)))
    found += [
        f"input {role} changed ({path})"
        for role, path in stage.inputs.items()
        if role not in record.inputs or (path.exists() and path_fingerprint(path) != record.inputs[role])
    ]
    return ", ".join(sorted(found)[:4]) or "its inputs are others"


def refuse_different(stages: list[Stage], run: Path) -> None:
    """Raise InputError for the first stage whose artifact was made differently."""
    for stage in stages:
        if situation(stage, run) == "different":
            raise InputError(
                f"{run / stage.name} was made differently: {differences(stage, run)}; "
                "--force makes it anew, --out starts another run"
            )

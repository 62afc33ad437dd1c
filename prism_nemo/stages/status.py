"""What is known of a run from its folder alone: the records of its stages."""

import os
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path

from prism_nemo.artifacts import write_whole
from prism_nemo.errors import InputError
from prism_nemo.launch.queue import JobState, last_lines, queue_state
from prism_nemo.rl.nemo_rl.progress import nemo_rl_progress
from prism_nemo.stages.stage import RECORDS, Record, read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLine:
    """A stage in `prism status`."""

    name: str
    state: str
    """done, running, stopped (resumes), failed, killed (its process is gone; the same command goes on), or to do; of a
    stage in a queue also pending, `stopped, will resume`, and cancelled."""
    seconds: float
    done: float
    total: float
    seconds_left: float
    """At the speed of the process that works on it; 0 when that is not known."""
    message: str
    warning: str = ""
    """The last one in the log of a stage that is not done."""


def overview(run: Path) -> list[StageLine]:
    """The stages of a run in the order of its recipe. Raises InputError when the folder holds no run."""
    jobs = queue_state(run)
    return [_stage_line(run, name, _job(name, jobs)) for name in stage_names(run)]


def _stage_line(run: Path, name: str, job: JobState | None) -> StageLine:
    line = _with_queue(run, _with_nemo_rl(run, _line(run, name, read_record(run, name))), job)
    return line if line.state in ("done", "to do") else replace(line, warning=_last_warning(run, name))


def _job(name: str, jobs: dict[str, JobState]) -> JobState | None:
    """The stage's job; where several make it, the first that is not done."""
    parts = [jobs[part] for part in (f"{name}.shares", f"{name}_config", name, f"{name}_export") if part in jobs]
    return next((part for part in parts if part.state not in ("done", "unknown")), parts[-1] if parts else None)


def stage_names(run: Path) -> list[str]:
    """Names of the run's stages, in order, as written by `prism run`."""
    order = run / RECORDS / "order.txt"
    if not order.is_file():
        raise InputError(f"{run} holds no run: it has no {RECORDS}/order.txt")
    return order.read_text().split()


def describe_run(run: Path, recipe: str, names: list[str]) -> None:
    """Write down what `run` is: its resolved recipe (YAML) and the names of its stages, in order."""
    (run / RECORDS).mkdir(parents=True, exist_ok=True)
    for path, text in ((run / "recipe.yaml", recipe), (run / RECORDS / "order.txt", "\n".join(names) + "\n")):
        write_whole(path, text)


def _line(run: Path, name: str, record: Record | None) -> StageLine:
    if record is None:
        return StageLine(name=name, state="to do", seconds=0, done=0, total=0, seconds_left=0, message="")
    state, seconds = str(record.state), record.seconds
    if state == "running" and not _alive(record):
        state = "killed"  # `seconds` are those to its last sign of life
    elif state == "running":
        seconds = time.time() - record.started
    elif state == "done" and not (run / name / "artifact.json").is_file():
        state = "to do"
    gained = record.done - (record.began or 0.0)
    left = seconds * (record.total - record.done) / gained if state == "running" and gained > 0 else 0.0
    return StageLine(
        name=name,
        state=state,
        seconds=round(seconds, 1),
        done=record.done,
        total=record.total,
        seconds_left=round(left, 1),
        message=record.message,
    )


def _with_nemo_rl(run: Path, line: StageLine) -> StageLine:
    """NeMo-RL keeps no record of ours; its checkpoints and our rewards say how far it is."""
    found = nemo_rl_progress(run / f"{line.name}.nemo_rl") if line.state == "to do" else None
    if found is None or (run / line.name).is_dir():
        return line
    return replace(
        line, done=found.saved, total=found.steps, seconds_left=round(found.seconds_left, 1), message=found.message
    )


def _last_warning(run: Path, name: str) -> str:
    """Of the trainer's first rank on this machine, or of a job's log."""
    local = run / f".{name}.partial" / "logs" / "rank0.log"
    lines = local.read_text(errors="replace").splitlines() if local.is_file() else last_lines(run, name, 20)
    return next((line for line in reversed(lines) if line.startswith("warning: ")), "")


def _with_queue(run: Path, line: StageLine, job: JobState | None) -> StageLine:
    """What the run's own record says, and where that leaves off, what the queue knows of the stage's job."""
    if job is not None and job.state == "done" and line.state == "to do" and (run / line.name).is_dir():
        return replace(line, state="done")  # made by another program, which keeps no record
    if job is None or line.state == "done" or job.state in ("done", "unknown"):
        return line
    if job.state == "pending":
        state = "stopped, will resume" if job.restarts else "pending"
        return replace(line, state=state, seconds_left=0.0, message=f"job {job.job_id}: {job.reason}")
    if job.state == "running":
        note = f"slice {job.restarts + 1}, {job.time_left} left of it" if job.time_left else job.reason
        return replace(line, state="running", message="; ".join(part for part in (line.message, note) if part))
    lines = last_lines(run, job.stage, 2) or [line.message]
    message = f"job {job.job_id} {job.reason}: {' | '.join(lines)}".rstrip(": ")
    return replace(line, state=job.state, seconds_left=0.0, message=message)


def _alive(record: Record) -> bool:
    """Whether the process that wrote the record still runs; on another host it is taken to."""
    if record.host != socket.gethostname():
        return True
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

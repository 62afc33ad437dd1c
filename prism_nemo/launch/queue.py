"""What the queue says of a run's jobs: squeue, then sacct. What became of the work is in the run's own records."""

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

JOBS = "jobs.json"
TIMEOUT = 20
"""Seconds to wait for squeue or sacct."""
ENDED = {
    "COMPLETED": "done",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "TIMEOUT": "failed",
    "FAILED": "failed",
    "NODE_FAIL": "failed",
    "OUT_OF_MEMORY": "failed",
    "BOOT_FAIL": "failed",
    "DEADLINE": "failed",
    "PREEMPTED": "failed",
}
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED", "CONFIGURING", "SPECIAL_EXIT"}
ALIVE = ("pending", "running")
ARRAY_ORDER = ("failed", "cancelled", "running", "pending", "done")
"""What the state of an array is, if any of its jobs is in it."""
TELLING = re.compile(r"error:|Error|Exception|CANCELLED|TIME LIMIT|PREEMPTION|oom|out of memory|Killed|warning:")
"""Lines of a log that say why a job ended."""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Terminal control sequences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """A submitted stage."""

    stage: str
    job_id: str
    submitted: float
    """Unix time, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A submitted stage as the queue sees it."""

    stage: str
    job_id: str
    state: Literal["pending", "running", "done", "failed", "cancelled", "unknown"]
    """`pending` with restarts: stopped, will resume. `unknown`: the queue has forgotten the job."""
    reason: str = ""
    """Why it waits or how it ended, in SLURM's words."""
    restarts: int = 0
    """How often it was requeued."""
    time_left: str = ""
    """Of the running slice."""
    nodes: str = ""


def read_jobs(run: Path) -> dict[str, SlurmJob]:
    """Stage -> its last submission; {} when nothing was submitted."""
    try:
        raw = json.loads((run / ".slurm" / JOBS).read_text())
    except FileNotFoundError:
        return {}
    return {stage: SlurmJob(stage=stage, **entry) for stage, entry in raw.items()}


def queue_state(run: Path) -> dict[str, JobState]:
    """Stage -> state of its job, for every stage of the run that was submitted; {} without any."""
    jobs = read_jobs(run)
    if not jobs:
        return {}
    live = _squeue([job.job_id for job in jobs.values()])
    gone = [job.job_id for job in jobs.values() if job.job_id not in live]
    ended = _sacct(gone) if gone else {}
    return {stage: _joined(job, live.get(job.job_id) or ended.get(job.job_id, [])) for stage, job in jobs.items()}


def is_queued(job_id: str) -> bool:
    """Whether the queue has this job, waiting or running."""
    job = SlurmJob(stage="", job_id=job_id, submitted=0.0)
    return _joined(job, _squeue([job_id]).get(job_id, [])).state in ALIVE


def _joined(job: SlurmJob, rows: list[dict[str, str]]) -> JobState:
    """One state for the job, of an array the one that matters most; running ones say how many are done."""
    if not rows:
        return JobState(stage=job.stage, job_id=job.job_id, state="unknown")
    states = [_state(job, row) for row in rows]
    chosen = next(state for word in ARRAY_ORDER for state in states if state.state == word)
    if len(rows) > 1:
        done = sum(state.state == "done" for state in states)
        return replace(chosen, reason=f"{chosen.reason} {done} of {len(rows)} jobs done".strip(), time_left="")
    return chosen


def _state(job: SlurmJob, row: dict[str, str]) -> JobState:
    word = row["state"].split()[0]
    if word in WAITING:
        state = "pending"
    else:
        state = ENDED.get(word, "running")
    return JobState(
        stage=job.stage,
        job_id=job.job_id,
        state=state,  # type: ignore[arg-type]
        reason=row.get("reason", "") if state == "pending" else ("" if state in ("running", "done") else word),
        restarts=int(row.get("restarts") or 0),
        time_left=row.get("left", "") if state == "running" else "",
        nodes=row.get("nodes", "") if state == "running" else "",
    )


def _squeue(ids: list[str]) -> dict[str, list[dict[str, str]]]:
    """Jobs the controller still knows: waiting, running, and those ended a while ago."""
    fields = {"state": "State", "reason": "Reason", "restarts": "RestartCnt", "left": "TimeLeft", "nodes": "NodeList"}
    columns = ",".join(f"{name}:|" for name in fields.values())
    found = {}
    for job_id in ids:  # one by one: an id that the controller has forgotten makes it refuse the whole list
        command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={job_id}", f"--Format={columns}"]
        lines = [line.split("|") for line in _ask(command).splitlines() if "|" in line]
        if lines:
            found[job_id] = [dict(zip(fields, map(str.strip, line), strict=False)) for line in lines]
    return found


def _sacct(ids: list[str]) -> dict[str, list[dict[str, str]]]:
    """A job of an array has the array's id before an underscore."""
    answer = _ask(["sacct", "--noheader", "--parsable2", "-X", "-j", ",".join(ids), "--format=JobID,State"])
    found: dict[str, list[dict[str, str]]] = {}
    for row in (line.split("|") for line in answer.splitlines()):
        if len(row) == 2 and row[1]:
            found.setdefault(row[0].partition("_")[0], []).append({"state": row[1]})
    return found


def _ask(command: list[str]) -> str:
    """The answer, or nothing: a queue that cannot be asked is no reason for `prism status` to fail."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def logs(run: Path, stage: str) -> list[Path]:
    """Logs of a stage's last job, in the order of its slices: the tasks' own, and last the batch script's."""
    job = read_jobs(run).get(stage)
    if job is None:
        return []
    folder = run / ".slurm" / "logs"
    found = folder.glob(f"log-*.{stage}_{job.job_id}_*.out")
    tasks = sorted(found, key=lambda path: int(path.stem.rsplit("_", 1)[1]))
    scripts = [*folder.glob(f"sbatch_*.{stage}_{job.job_id}.out"), *folder.glob(f"sbatch_*.{stage}_{job.job_id}_*.out")]
    return [*sorted(scripts), *tasks]


def last_lines(run: Path, stage: str, count: int = 5) -> list[str]:
    """The last lines of a stage's log that say what happened; the very last ones when none does."""
    lines: list[str] = []
    for path in logs(run, stage):
        text = CONTROL.sub("", path.read_text(errors="replace"))
        lines += [line.rstrip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if TELLING.search(line) and not line.startswith("+")]
    return (telling or lines)[-count:]

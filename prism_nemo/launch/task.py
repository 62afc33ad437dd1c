"""What every task of a stage's SLURM step runs: `python -m prism_nemo.launch.task --run DIR --stage NAME -- RECIPE ...`

Task 0 runs `prism run` for the one stage; in a training stage the others are ranks of the engine. SLURM's signals are
passed on. At the end task 0 writes a verdict, with job and slice, that the batch script and the other tasks wait for:
exit codes alone cannot tell a stop from a crash when several tasks end at once.

    done        the artifact stands
    stopped     saved on request: the next slice goes on
    crashed     several ranks, and not their input, failed: a node may have died, so the next slice tries again, until
                `--stalled` slices in a row began at the same step
    failed      trying again would be of no use
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import write_whole
from prism_nemo.errors import PrismError
from prism_nemo.launch import versions
from prism_nemo.launch.ranks import JOB_FILE, rank_environment
from prism_nemo.launch.script import SHARES

WAIT_SECONDS = 1800.0
"""For task 0 to say what is to be trained: it reads recipe and inputs first, on a shared file system."""
PEER_SECONDS = 60.0
"""For task 0 to notice that another rank crashed, and say so."""
STOPPED, WRONG_INPUT = 75, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of this task."""
    parser = argparse.ArgumentParser(prog="prism_nemo.launch.task")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--stalled", type=int, required=True)
    parser.add_argument("--shares", type=int, default=0)
    parser.add_argument("recipe", nargs="+")
    given = parser.parse_args(arguments)
    folder = given.run / ".slurm"
    name, work = given.stage, ["--from", given.stage, "--to", given.stage, "--out", str(given.run)]
    if given.shares:
        number = os.environ["SLURM_ARRAY_TASK_ID"]
        name, work = f"{name}.{SHARES}.{number}", [*work, "--share", f"{number}/{given.shares}"]
    os.environ[JOB_FILE] = str(folder / f"{given.stage}.{'.'.join(_slice())}.job.json")
    if os.environ.get("SLURM_PROCID", "0") == "0":
        return _first(given.run, given.stage, name, given.stalled, [*work, "--", *given.recipe])
    return _other(folder, given.stage)


def _slice() -> tuple[str, str]:
    """(job id, how often it was requeued)."""
    return os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_RESTART_COUNT", "0")


def _first(run: Path, stage: str, name: str, stalled: int, work: list[str]) -> int:
    """Task 0, or a job of an array; `name`: of its verdict."""
    try:
        check_progress(run, stage, stalled, name)
    except PrismError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        _say(run, name, "failed")
        return 1
    if os.environ.get("SLURM_GPUS_ON_NODE"):
        for line in versions.problems():
            print(f"warning: {line}", file=sys.stderr, flush=True)
    code, asked = _supervise([sys.executable, "-m", "prism_nemo.cli.main", "run", *work], _plain_output())
    verdict = judge(code, asked, tasks=int(os.environ.get("SLURM_NTASKS", "1")))
    _say(run, name, verdict)
    return STOPPED if verdict == "stopped" else code if code >= 0 else 128 - code


def judge(code: int, asked: bool, *, tasks: int) -> str:
    """The verdict on an exit code (negative for a signal) of `prism run`; `asked`: whether it was told to stop."""
    if code == 0:
        return "done"
    if code == STOPPED or (asked and -code in (signal.SIGTERM, signal.SIGUSR1)):
        return "stopped"
    return "crashed" if tasks > 1 and code != WRONG_INPUT else "failed"


def _plain_output() -> dict[str, str]:
    """This environment without what makes programs draw on a log as if it were a terminal."""
    drawing = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    return {name: value for name, value in os.environ.items() if name not in drawing} | {"TERM": "dumb"}


def _other(folder: Path, stage: str) -> int:
    """A rank of the trainer; it leaves when task 0 has, for srun ends the whole step a minute after its first task."""
    job = Path(os.environ[JOB_FILE])
    deadline = time.monotonic() + WAIT_SECONDS
    while not job.is_file() and not _verdict(folder, stage):
        if time.monotonic() > deadline:
            print(f"error: task 0 left no {job.name} in {WAIT_SECONDS:.0f} s", file=sys.stderr, flush=True)
            return 1
        time.sleep(0.2)
    if job.is_file():
        command = [sys.executable, "-m", "prism_nemo.engine.train", str(job)]
        code, asked = _supervise(command, {**os.environ, **rank_environment()})
        if code not in (0, STOPPED) and not asked:
            _wait_for_verdict(folder, stage, PEER_SECONDS)
            if not _verdict(folder, stage):
                _say(folder.parent, stage, "failed" if code == WRONG_INPUT else "crashed")
            return code if code > 0 else 128 - code
    _wait_for_verdict(folder, stage, float("inf"))
    return 0


def _wait_for_verdict(folder: Path, stage: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not _verdict(folder, stage) and time.monotonic() < deadline:
        time.sleep(0.2)


def _supervise(command: list[str], environment: dict[str, str]) -> tuple[int, bool]:
    """Run a command, pass SIGTERM and SIGUSR1 on; (exit code, negative for a signal; whether it was asked to stop)."""
    asked = False
    process: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: Any) -> None:
        nonlocal asked
        if not asked and process is not None:
            process.send_signal(signal.SIGTERM)
        asked = True

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stop)
    # Its own session: SLURM signals whole process groups, and the child would hear everything twice.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    if asked:
        process.send_signal(signal.SIGTERM)
    return process.wait(), asked


def _say(run: Path, stage: str, verdict: str) -> None:
    write_whole(run / ".slurm" / f"{stage}.verdict", " ".join((*_slice(), verdict)))


def _verdict(folder: Path, stage: str) -> str:
    """What task 0 of this very slice said, or nothing yet."""
    try:
        *said, verdict = (folder / f"{stage}.verdict").read_text().split()
    except (FileNotFoundError, ValueError):
        return ""
    return verdict if tuple(said) == _slice() else ""


def check_progress(run: Path, stage: str, stalled: int, name: str = "") -> None:
    """Note where this slice begins. Raises PrismError when `stalled` slices before it began at the same point."""
    file = run / ".slurm" / f"{name or stage}.slices.json"
    job_id = _slice()[0]
    try:
        noted = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        noted = {}
    starts = noted["starts"] if noted.get("job_id") == job_id else []
    now = point(run, stage)
    if len(starts) >= stalled and all(start >= now for start in starts[-stalled:]):
        raise PrismError(
            f"stage {stage} made no progress in {stalled} slices: each began at {now:g}; look at the logs in"
            f" {run / '.slurm' / 'logs'}, or give it more time per slice"
        )
    file.write_text(json.dumps({"job_id": job_id, "starts": [*starts, now]}))


def point(run: Path, stage: str) -> float:
    """How far a stage is: the last checkpoint's step, the pieces of token files, else what its record says."""
    pieces = len(list((run / f".{stage}.work" / "shards").glob("[!.]*")))
    if pieces:
        return pieces
    whole = (run / f".{stage}.partial").glob("iter_*/whole.json")
    saved = [int(path.parent.name.removeprefix("iter_")) for path in whole]
    if saved:
        return max(saved)
    try:
        return float(json.loads((run / ".stages" / f"{stage}.json").read_text())["done"])
    except (FileNotFoundError, ValueError, KeyError):
        return 0.0


if __name__ == "__main__":
    sys.exit(main())

"""`slurm/rl.sh` without a controller: one job of NeMo-RL at a time, and an end to jobs that save nothing."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """RUN/rl.nemo_rl whose launch script notes each submission in `submitted` and does what `does` says."""
    work = tmp_path / "run" / "rl.nemo_rl"
    (work / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / ".slurm").mkdir()
    program(work / "launch.sh", f"echo x >> {work}/submitted; . {work}/does; echo Submitted batch job 7")
    (work / "does").write_text("true")
    return work


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def follow(work: Path, squeue: str, steps: int, job_id: str = "5") -> subprocess.CompletedProcess[str]:
    program(work.parent / "squeue", squeue)
    environment = {"PATH": f"{work.parent}:{os.environ['PATH']}", "RL_POLL_SECONDS": "0.02", "SLURM_JOB_ID": job_id}
    command = ["bash", ROOT / "slurm" / "rl.sh", work.parent, "rl", work.parent, str(steps)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def submissions(work: Path) -> int:
    return len((work / "submitted").read_text().splitlines())


@pytest.mark.parametrize(
    ("answers", "calls"),
    [
        (["echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1"] * 3 + ["true"], 4),
        (["echo RUNNING", "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1"], 2),
        (["echo PENDING", "echo RUNNING", "echo COMPLETING", "true"], 4),
    ],
)
def test_no_second_job_beside_one_that_may_still_run(work: Path, answers: list[str], calls: int) -> None:
    (work / "does").write_text(f"mkdir {work}/checkpoints/step_20")
    cases = " ".join(f"{number}) {answer};;" for number, answer in enumerate(answers, 1))
    done = follow(work, f"echo x >> {work}/asked; case $(wc -l < {work}/asked) in {cases} esac", 20)
    assert (done.returncode, submissions(work)) == (0, 1), done.stderr
    assert len((work / "asked").read_text().splitlines()) == calls


def test_three_jobs_that_save_nothing_are_the_end(work: Path) -> None:
    done = follow(work, "true", 20)
    assert (done.returncode, submissions(work)) == (1, 3)
    assert "NeMo-RL saved no new step in 3 jobs (last 7, step 0)" in done.stderr


@pytest.mark.parametrize(("job_id", "more"), [("5", 1), ("6", 3)])
def test_the_count_lasts_over_the_slices_of_a_job(work: Path, job_id: str, more: int) -> None:
    (work / ".stalled").write_text("5 2\n")
    assert follow(work, "true", 20, job_id).returncode == 1
    assert submissions(work) == more


def test_a_step_that_was_saved_while_nobody_looked_counts(work: Path) -> None:
    """The job was submitted at step 20 by an earlier slice and had saved the next step when this one began."""
    for step in (20, 40):
        (work / "checkpoints" / f"step_{step}").mkdir()
    (work / "ray_job").write_text("7\n20\n")
    (work / ".stalled").write_text("5 2\n")
    (work / "does").write_text(f"mkdir {work}/checkpoints/step_60")
    done = follow(work, "true", 60)
    assert (done.returncode, submissions(work)) == (0, 1), done.stderr

"""Jobs that are really submitted: cut in four ways, failing, in (pretended) containers; and every shipped profile."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_cluster import Cluster, has_mount_namespaces

from prism_nemo.engine.progress import read_progress
from prism_nemo.launch import last_lines, load_profile, queue_state
from prism_nemo.launch.profile import PROFILES
from prism_nemo.launch.queue import read_jobs
from prism_nemo.launch.script import CODE, Job, render
from prism_nemo.recipe import Parallel, load_recipe, override

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROFILE = """
extends = "local"
time = "01:00:00"
save_seconds = 120
"""


def profile_file(folder: Path, more: str = "") -> str:
    path = folder / "test.toml"
    path.write_text(PROFILE + more)
    return str(path)


def step_of(run: Path) -> int:
    lines = read_progress(run / ".midtrain.partial")
    return int(lines[-1]["step"]) if lines else 0


def wait_for_step(run: Path, cluster: Cluster, job_id: str, step: int, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while step_of(run) < step:
        state, _ = cluster.job_state(job_id)
        assert state in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), "\n".join(last_lines(run, "midtrain", 30))
        assert time.monotonic() < deadline, f"step {step_of(run)} after {seconds:.0f} s, job is {state}"
        time.sleep(0.2)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob(pattern))}


@pytest.mark.timeout(1500)
def test_cut_by_requeue_preemption_node_failure_and_time_limit_ends_with_the_same_weights(
    cluster: Cluster, recipe: Path, run: Path, prepared: Path, prism: Callable[..., str], tmp_path: Path
) -> None:
    prism("run", str(recipe), "--from", "midtrain", "--to", "mt", "--out", str(run), "--run", profile_file(tmp_path))
    midtrain, export = (read_jobs(run)[stage].job_id for stage in ("midtrain", "mt"))
    assert queue_state(run)["mt"].state == "pending"

    wait_for_step(run, cluster, midtrain, 25)
    cluster.ask("scontrol", "requeue", midtrain)
    cluster.wait_for(midtrain, "PENDING")
    state = queue_state(run)["midtrain"]
    assert (state.state, state.restarts) == ("pending", 1)

    wait_for_step(run, cluster, midtrain, step_of(run) + 15)
    wanted = ["--partition=urgent", f"--nodes={len(cluster.names)}", "--exclusive", "--output=/dev/null"]
    urgent = cluster.ask("sbatch", "--parsable", *wanted, "--wrap", "sleep 2").strip()
    cluster.wait_for(urgent, "COMPLETED")
    assert queue_state(run)["midtrain"].restarts == 2

    wait_for_step(run, cluster, midtrain, step_of(run) + 25)
    cluster.kill_node("n2")
    cluster.wait_for(midtrain, "PENDING", seconds=90)

    wait_for_step(run, cluster, midtrain, step_of(run) + 15)
    # The signal comes three minutes before the end, so it is due at once; two at least are left for saving.
    cluster.ask("scontrol", "update", f"JobId={midtrain}", f"TimeLimit={cluster.minutes_used(midtrain) + 3}")
    cluster.wait_for(midtrain, "PENDING", seconds=200)
    job_id, slices, verdict = (run / ".slurm" / "midtrain.verdict").read_text().split()
    assert (job_id, verdict) == (midtrain, "stopped")
    assert int(slices) >= 3
    cluster.ask("scontrol", "update", f"JobId={midtrain}", "TimeLimit=60")

    state, restarts = cluster.wait_for(midtrain, "COMPLETED", "FAILED", "CANCELLED", seconds=400)
    assert (state, restarts >= 4) == ("COMPLETED", True)
    cluster.wait_for(export, "COMPLETED", "FAILED", "CANCELLED", seconds=90)
    assert {stage: state.state for stage, state in queue_state(run).items()} == {"midtrain": "done", "mt": "done"}
    assert contents(run / "mt", "*.safetensors") == contents(prepared / "mt", "*.safetensors") != {}


def test_a_failing_stage_cancels_what_depends_on_it(
    cluster: Cluster, recipe: Path, run: Path, prism: Callable[..., str], tmp_path: Path
) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nenv > {tmp_path}/seen.$SLURM_PROCID\nexec {_python()} "$@"\n')
    wrapper.chmod(0o755)
    more = f'python = "{wrapper}"\nsecrets = ["PRISM_TEST_SECRET"]\n'
    containers = has_mount_namespaces()
    if containers:
        more += 'container_image = "/images/stand-in.sqsh"\nsrun_args = ["--no-container-mount-home"]\n'
        more += f'mounts = ["{tmp_path}:/prism_test_mount:ro"]\n'
    profile = profile_file(tmp_path, more)
    (run / "blend" / "blend.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRISM_TEST_SECRET", "not to be seen")
        prism("run", str(recipe), "--from", "midtrain", "--to", "mt", "--out", str(run), "--run", profile)
    midtrain, export = (read_jobs(run)[stage].job_id for stage in ("midtrain", "mt"))
    assert cluster.wait_for(midtrain, "COMPLETED", "FAILED", seconds=120) == ("FAILED", 0)
    cluster.wait_for(export, "CANCELLED", seconds=30)
    assert {stage: state.state for stage, state in queue_state(run).items()} == {
        "midtrain": "failed",
        "mt": "cancelled",
    }
    assert any("blend" in line for line in last_lines(run, "midtrain"))

    seen = dict(line.split("=", 1) for line in (tmp_path / "seen.0").read_text().splitlines() if "=" in line)
    assert seen["PRISM_TEST_SECRET"] == "not to be seen"
    if containers:
        assert (seen["PWD"], seen["STUB_IMAGE"], seen["STUB_HOME"]) == ("/nemo_run/code", "/images/stand-in.sqsh", "no")
        assert f"{tmp_path}:/prism_test_mount:ro" in seen["STUB_MOUNTS"]
        assert seen["STUB_ENV"] == "PRISM_TEST_SECRET"
    written = [path for path in run.rglob("*") if path.is_file()]
    assert {".out", ".sbatch", ".json", ".verdict"} <= {path.suffix for path in written}
    assert [path for path in written if b"not to be seen" in path.read_bytes()] == []


def _python() -> str:
    import sys

    return sys.executable


@pytest.mark.parametrize("stage", ["blend", "midtrain"])
@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.toml")))
def test_slurm_accepts_every_shipped_profile(cluster: Cluster, name: str, stage: str, tmp_path: Path) -> None:
    recipe = override(load_recipe("llama_3_1_8b"), ["parallel.nodes=2"])
    job = Job(stage=stage, ranks=16 if stage == "midtrain" else 1, arguments=("llama_3_1_8b",), gpu=stage == "midtrain")
    code = tmp_path / ".slurm" / "code-1"
    text = render(job, load_profile(name), recipe.parallel, run=tmp_path, code=code, recipe=recipe.name)
    script = tmp_path / "job.sbatch"
    script.write_text(text)
    answer = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_a_cancelled_job_does_not_come_back(
    cluster: Cluster, recipe: Path, run: Path, prism: Callable[..., str], tmp_path: Path
) -> None:
    prism(
        "run", str(recipe), "--from", "midtrain", "--to", "midtrain", "--out", str(run), "--run", profile_file(tmp_path)
    )
    job_id = read_jobs(run)["midtrain"].job_id
    cluster.wait_for(job_id, "RUNNING")
    wait_until((run / ".slurm" / "midtrain.slices.json").is_file)
    cluster.ask("scancel", job_id)
    assert cluster.wait_for(job_id, "CANCELLED", "PENDING", "RUNNING", seconds=60) == ("CANCELLED", 0)
    assert (run / ".slurm" / "midtrain.verdict").read_text().endswith(" stopped")


def test_slices_have_an_end_that_is_said(cluster: Cluster, tmp_path: Path) -> None:
    """Of a stage that is stopped in every slice."""
    run = tmp_path / "run"
    (run / ".slurm" / "logs").mkdir(parents=True)
    (tmp_path / "code-1" / "code").mkdir(parents=True)
    stop = f'echo "$SLURM_JOB_ID ${{SLURM_RESTART_COUNT:-0}} stopped" > {run}/.slurm/x.verdict; exit 75'
    job = Job(stage="x", ranks=1, arguments=(), command=("bash", "-c", stop), gpu=False)
    profile, script = load_profile(profile_file(tmp_path, "max_slices = 2\n")), tmp_path / "x.sbatch"
    script.write_text(render(job, profile, Parallel(nodes=1), run=run, code=tmp_path / "code-1", recipe="r"))
    job_id = cluster.ask("sbatch", "--parsable", str(script)).strip()
    assert cluster.wait_for(job_id, "FAILED", "COMPLETED", "CANCELLED", seconds=90) == ("FAILED", 1)
    log = (run / ".slurm" / "logs" / f"sbatch_r.x_{job_id}.out").read_text().splitlines()
    assert log.count("error: not done in 2 slices (max_slices); submit again to go on") == 1


def test_an_array_of_jobs_makes_the_same_token_files(
    cluster: Cluster, recipe: Path, run: Path, prepared: Path, prism: Callable[..., str], tmp_path: Path
) -> None:
    shutil.rmtree(run / "blend")
    (run / ".stages" / "blend.json").unlink()
    profile = profile_file(tmp_path, "prepare_jobs = 2\n")
    prism("run", str(recipe), "--from", "blend", "--to", "blend", "--out", str(run), "--run", profile)
    jobs = read_jobs(run)
    assert list(jobs) == ["blend.shares", "blend"]
    cluster.wait_for(jobs["blend"].job_id, "COMPLETED", "FAILED", "CANCELLED", seconds=200)
    assert {stage: state.state for stage, state in queue_state(run).items()} == {
        "blend.shares": "done",
        "blend": "done",
    }
    assert contents(run / "blend", "*.bin") == contents(prepared / "blend", "*.bin") != {}
    assert contents(run / "blend", "*.idx") == contents(prepared / "blend", "*.idx")
    made = "\n".join(path.read_text() for path in (run / ".slurm" / "logs").glob("log-*shares*"))
    assert "error" not in made


def test_nemo_rl_is_submitted_until_its_steps_are_done(cluster: Cluster, tmp_path: Path) -> None:
    """Its program is a stand-in that saves 20 steps in each of its jobs; the job that follows it is stopped once."""
    run, checkpoints = tmp_path / "run", tmp_path / "run" / "rl.nemo_rl" / "checkpoints"
    (run / ".slurm" / "logs").mkdir(parents=True)
    checkpoints.mkdir(parents=True)
    launch = checkpoints.parent / "launch.sh"
    more = f"sleep 3; n=$(ls {checkpoints} | wc -l); mkdir {checkpoints}/step_$(((n + 1) * 20))"
    launch.write_text(f"#!/bin/sh\nsbatch --output=/dev/null --job-name=ray --wrap '{more}'\n")
    launch.chmod(0o755)
    code = tmp_path / "code-1"
    shutil.copytree(PROFILES.parent, code / "code" / "slurm")
    profile = load_profile(profile_file(tmp_path, "[environment]\nRL_POLL_SECONDS = 1\n"))
    command = ("bash", f"{CODE}/slurm/rl.sh", str(run), "rl", str(tmp_path), "60")
    job = Job(stage="rl", ranks=1, arguments=(), command=command, gpu=False)
    script = tmp_path / "rl.sbatch"
    script.write_text(render(job, profile, Parallel(nodes=1), run=run, code=code, recipe="r"))
    job_id = cluster.ask("sbatch", "--parsable", str(script)).strip()
    wait_until(lambda: (checkpoints / "step_20").is_dir())
    cluster.ask("scancel", "--signal=USR1", job_id)
    cluster.wait_for(job_id, "PENDING", seconds=30)
    state, restarts = cluster.wait_for(job_id, "COMPLETED", "FAILED", "CANCELLED", seconds=90)
    assert (state, restarts) == ("COMPLETED", 1)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step_20", "step_40", "step_60"]
    assert cluster.ask("squeue", "--noheader", "--name=ray", "--states=all", "--format=%T").split() == ["COMPLETED"] * 3

"""Submitting the stages of a recipe as a chain of SLURM jobs."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from prism_nemo.artifacts import write_whole
from prism_nemo.errors import InputError, PrismError
from prism_nemo.launch.files import check_mounted, from_the_root
from prism_nemo.launch.nemo_rl import ray_job, rl_jobs, runs_in_nemo_rl, work_folder
from prism_nemo.launch.profile import Profile, load_profile
from prism_nemo.launch.queue import ALIVE, JOBS, SlurmJob, is_queued, queue_state, read_jobs
from prism_nemo.launch.script import SHARES, Job, render
from prism_nemo.launch.snapshot import snapshot
from prism_nemo.recipe import Recipe


class StageToRun(Protocol):
    """What this room needs to know of a stage."""

    @property
    def name(self) -> str: ...

    @property
    def ranks(self) -> int: ...

    @property
    def gpu(self) -> bool: ...

    @property
    def share(self) -> object | None: ...

    @property
    def inputs(self) -> Mapping[str, Path]: ...


def submit(
    recipe: Recipe,
    source: str,
    overrides: Sequence[str],
    stages: Sequence[StageToRun],
    run: Path,
    *,
    profile: str,
    dry_run: bool = False,
    force: bool = False,
) -> list[SlurmJob]:
    """One job per stage, each after the one before it has succeeded; the jobs in their order, none in a dry run.

    `source`: the recipe's name or file as it was given; a file is copied into the run. With `dry_run` the resolved
    recipe and the very sbatch texts are printed instead. With `force` what these stages made before is removed. A stage
    that is still queued from an earlier submission is an InputError: two jobs must not write one run. Raises PrismError
    when sbatch refuses.
    """
    run = run.resolve()
    chosen = load_profile(profile)
    _check_secrets(chosen)
    check_mounted(recipe, chosen, run)
    removed = [stage.name for stage in stages] if force else []
    if not dry_run:
        _refuse_queued(run)
        _refuse_at_work(removed, run)
    folder = run / ".slurm"
    arguments = (_recipe_argument(source, folder, dry_run=dry_run), *overrides, *from_the_root(recipe))
    jobs = [job for stage in stages for job in _jobs(stage, recipe, arguments, chosen, run)]
    if dry_run:
        _show(recipe, jobs, chosen, run)
        return []
    for job in jobs:  # each script can be written: found before the first job is in the queue
        render(job, chosen, recipe.parallel, run=run, code=folder / "code", recipe=recipe.name)
    _need_sbatch()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    write_whole(run / "recipe.yaml", recipe.to_yaml())
    code = snapshot(folder)
    for name in removed:
        shutil.rmtree(run / name, ignore_errors=True)
        if runs_in_nemo_rl(recipe, name):
            shutil.rmtree(work_folder(run, name), ignore_errors=True)
    submitted: list[SlurmJob] = []
    try:
        for job in jobs:
            after = submitted[-1].job_id if submitted else None
            text = render(job, chosen, recipe.parallel, run=run, code=code, recipe=recipe.name, after=after)
            submitted.append(_sbatch(job.name, text, folder))
            _remember(folder, submitted[-1])
    except PrismError:
        _cancel(submitted)
        raise
    return submitted


def _jobs(stage: StageToRun, recipe: Recipe, arguments: tuple[str, ...], profile: Profile, run: Path) -> list[Job]:
    """The job of a stage; before it, where its work can be shared and the profile wants that, an array of jobs."""
    if runs_in_nemo_rl(recipe, stage.name):
        return rl_jobs(stage, recipe, profile, run)
    job = Job(stage=stage.name, ranks=stage.ranks, arguments=arguments, gpu=stage.gpu)
    shares = profile.for_stage(stage.name, gpu=stage.gpu).prepare_jobs
    return [replace(job, part=SHARES, shares=shares), job] if stage.share and shares > 1 else [job]


def _show(recipe: Recipe, jobs: list[Job], profile: Profile, run: Path) -> None:
    print(recipe.to_yaml())
    for number, job in enumerate(jobs):
        after = f"<id of {jobs[number - 1].name}>" if number else None
        code = run / ".slurm" / "code-HASH"
        print(f"# ---- {job.name}")
        print(render(job, profile, recipe.parallel, run=run, code=code, recipe=recipe.name, after=after))


def _recipe_argument(source: str, folder: Path, *, dry_run: bool) -> str:
    """A shipped recipe goes by name (it travels with the code); a file is copied into the run."""
    path = Path(source)
    if not path.suffix and not path.is_file():
        return source
    copy = folder / "recipe" / path.name
    if not dry_run:
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return str(copy)


def _check_secrets(profile: Profile) -> None:
    absent = [name for name in profile.secrets if not os.environ.get(name)]
    if absent:
        raise InputError(f"profile {profile.name} passes on {', '.join(absent)}; set it in this shell first")


def _refuse_queued(run: Path) -> None:
    alive = [state for state in queue_state(run).values() if state.state in ALIVE]
    if alive:
        raise InputError(
            f"stage {alive[0].stage} of {run} is already in the queue (job {alive[0].job_id}, {alive[0].state});"
            f" wait for it, or `scancel {alive[0].job_id}`"
        )


def _refuse_at_work(names: Sequence[str], run: Path) -> None:
    """NeMo-RL's own job outlives the stage's: its folder must not go from under it."""
    for name in names:
        job_id = ray_job(run, name)
        if job_id and is_queued(job_id):
            raise InputError(
                f"NeMo-RL's job {job_id} of stage {name} is still in the queue and writes {work_folder(run, name)};"
                f" `scancel {job_id}` before --force"
            )


def _need_sbatch() -> None:
    if shutil.which("sbatch") is None:
        raise InputError("no `sbatch` on this machine; submit from a login node of the cluster, or leave --run out")


def _sbatch(stage: str, text: str, folder: Path) -> SlurmJob:
    script = folder / f"{stage}.sbatch"
    script.write_text(text)
    answer = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True)
    if answer.returncode:
        raise PrismError(f"sbatch refuses stage {stage}: {answer.stderr.strip()}; the script is {script}")
    return SlurmJob(stage=stage, job_id=answer.stdout.strip().split(";")[0], submitted=time.time())


def _cancel(submitted: list[SlurmJob]) -> None:
    if submitted:
        subprocess.run(["scancel", *(job.job_id for job in submitted)], capture_output=True)


def _remember(folder: Path, job: SlurmJob) -> None:
    jobs = {**read_jobs(folder.parent), job.stage: job}
    plain = {name: {"job_id": entry.job_id, "submitted": entry.submitted} for name, entry in jobs.items()}
    write_whole(folder / JOBS, json.dumps(plain, indent=1))

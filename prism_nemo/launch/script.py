"""One stage of a recipe as an sbatch script, rendered by nemo-run's SlurmExecutor.

nemo-run's own retries are off: they requeue a crash as readily as a stop. The script's last act is ours instead: it
asks for another slice when, and only when, the stage said that one is of use (`prism_nemo.launch.task`).
"""

import re
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError, missing_package
from prism_nemo.launch.profile import SIGNAL_MARGIN, UNSAFE, Profile
from prism_nemo.recipe import Parallel

SHARES = "shares"
"""Part of a stage that an array of jobs does."""
SPLITS = re.compile("[,:%]")
"""In a path: SLURM's patterns, and what stands between mounts."""
CODE = "{code}"
"""In a job's command: the folder of the code that travelled with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A stage to be submitted, or a part of one."""

    stage: str
    part: str = ""
    """Of a stage that several jobs make; empty: the job that makes its artifact."""
    ranks: int
    """Processes that share the work."""
    arguments: tuple[str, ...]
    """Of `prism run` without --from, --to and --out: the recipe and its overrides."""
    gpu: bool = True
    """Whether it gets the GPUs of the profile."""
    shares: int = 0
    """Jobs of an array that each do a share of the stage; 0: it is one job that does all, or the rest."""

    command: tuple[str, ...] = ()
    """To be run in place of the stage; empty: the stage."""
    container: bool = True
    """Whether it runs in the profile's image, if there is one."""

    @property
    def name(self) -> str:
        """Of the job and its logs."""
        return f"{self.stage}.{self.part}" if self.part else self.stage


def render(
    job: Job, profile: Profile, parallel: Parallel, *, run: Path, code: Path, recipe: str, after: str | None = None
) -> str:
    """The sbatch text of one job. `run`: folder of the run. `code`: what `snapshot` returned. `after`: id of a job that
    must succeed first. `recipe`: its name, for the job's. Raises InputError for what cannot be passed on.
    """
    for value, cure in ((str(run), "another --out"), (str(code), "another --out"), (recipe, "another name")):
        if UNSAFE.search(value) or SPLITS.search(value):
            raise InputError(f"{value}: blanks, shell characters and , : % cannot be passed to a job; use {cure}")
    profile = profile.for_stage(job.stage, gpu=job.gpu)
    if not job.container:
        profile = replace(profile, container_image="", mounts=())
    slurm, batch_request = _nemo_run()
    nodes, per_node = _shape(job, parallel)
    details = slurm.SlurmJobDetails(job_name=f"{recipe}.{job.name}", folder=str(run / ".slurm" / "logs"))
    executor = slurm.SlurmExecutor(
        account=profile.account,
        partition=profile.partition or None,
        qos=profile.qos or None,
        time=profile.time,
        nodes=nodes,
        ntasks_per_node=per_node,
        gpus_per_node=(profile.gpus_per_node or None) if job.gpu else None,
        array=f"0-{job.shares - 1}" if job.shares else None,
        cpus_per_task=profile.cpus_per_task or None,
        mem=profile.mem or None,
        exclusive=profile.exclusive or None,
        signal=f"USR1@{profile.save_seconds + SIGNAL_MARGIN}",
        container_image=profile.container_image or None,
        container_mounts=[*profile.mounts, f"{run}:{run}"],
        container_env=list(profile.secrets) or None,
        srun_args=list(profile.srun_args),
        env_vars=_environment(profile),
        setup_lines="\n".join([*profile.setup, requeue_lines(run, job.name, profile)]),
        additional_parameters=_sbatch(profile, after),
        job_details=details,
        tunnel=slurm.LocalTunnel(job_dir=str(code.parent)),
    )
    executor.job_dir = str(code)
    text = batch_request(
        launch_cmd=["sbatch"],
        jobs=[f"{recipe}.{job.name}"],
        command_groups=[[_command(job, profile, run, code)]],
        executor=executor,
        max_retries=0,
        extra_env={},
    ).materialize()
    return re.sub(r"\n{3,}", "\n\n", text)


def _shape(job: Job, parallel: Parallel) -> tuple[int, int]:
    """(nodes, tasks per node)."""
    if job.ranks == 1:
        return 1, 1
    per_node = parallel.devices_per_node or -(-job.ranks // parallel.nodes)
    if per_node * parallel.nodes != job.ranks:
        raise InputError(f"{job.ranks} ranks of stage {job.stage} are not {parallel.nodes} nodes x {per_node}")
    return parallel.nodes, per_node


def interpreter(profile: Profile) -> str:
    """Python in the jobs."""
    return profile.python or ("python" if profile.container_image else sys.executable)


def _command(job: Job, profile: Profile, run: Path, code: Path) -> str:
    if job.command:
        return " ".join(shlex.quote(word.replace(CODE, str(code / "code"))) for word in job.command)
    words = [interpreter(profile), "-m", "prism_nemo.launch.task", "--run", str(run), "--stage", job.stage]
    words += ["--stalled", str(profile.stalled_slices)]
    words += ["--shares", str(job.shares)] if job.shares else []
    words += ["--", *job.arguments]
    return " ".join(shlex.quote(word) for word in words)


def _environment(profile: Profile) -> dict[str, str]:
    """nemo-run upper-cases the names and quotes no value: `$head_node_ip` and the port are meant to expand."""
    rendezvous = {"MASTER_ADDR": "$head_node_ip", "MASTER_PORT": "$((20000+SLURM_JOB_ID%10000))"}
    return {**rendezvous, "OMP_NUM_THREADS": "1", **profile.environment}


def _sbatch(profile: Profile, after: str | None) -> dict[str, Any]:
    chosen: dict[str, Any] = {"requeue": True, **profile.sbatch}
    if after is not None:
        chosen |= {"dependency": f"afterok:{after}", "kill_on_invalid_dep": "yes"}
    return chosen


def requeue_lines(run: Path, name: str, profile: Profile) -> str:
    """Shell lines: at the end, ask for the next slice if the verdict wants one and SLURM gives none by itself.

    It does after a requeue, a preemption and the failure of a node, and must not after `scancel`: in all of these the
    job is completing by now. After the hard time limit it is too, but nobody else asks. SIGTERM, which comes with all
    of them, would end the shell at once; ignored by a handler, it waits for the tasks to save. The script itself is in
    the log (nemo-run's `set -v`), so no line of it may look like an error's.
    """
    return f"""prism_next_slice() {{
  code=$?
  trap - EXIT
  said=$(cat {run}/.slurm/{name}${{SLURM_ARRAY_TASK_ID:+.$SLURM_ARRAY_TASK_ID}}.verdict 2>/dev/null)
  case "$said" in
    "$SLURM_JOB_ID ${{SLURM_RESTART_COUNT:-0}} stopped"|"$SLURM_JOB_ID ${{SLURM_RESTART_COUNT:-0}} crashed")
      case "$(squeue --noheader --jobs="$SLURM_JOB_ID" --states=all --format='%T %r')" in
        RUNNING*|*TimeLimit)
          if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {profile.max_slices - 1} ]; then scontrol requeue "$SLURM_JOB_ID"
          else printf 'error%s\\n' ": not done in {profile.max_slices} slices (max_slices); submit again to go on"; fi;;
      esac
      exit 75;;
  esac
  exit $code
}}
trap prism_next_slice EXIT
trap : TERM"""


def _nemo_run() -> tuple[Any, Any]:
    try:
        import nemo_run.core.execution.slurm as slurm
    except ImportError as error:
        raise missing_package("nemo-run", "submitting to SLURM", "pip install 'prism-nemo[slurm]'") from error
    return slurm, slurm.SlurmBatchRequest

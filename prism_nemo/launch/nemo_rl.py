"""Reinforcement learning as jobs: NeMo-RL starts itself by its own ray.sub, in its own image, on all nodes.

Three jobs stand for the stage: one writes prompts, configuration and launch script (`prism rl run`), one submits that
script and waits, as often as its steps need slices (`slurm/rl.sh`, no container: it calls sbatch), and one turns the
last checkpoint into a Hugging Face folder, with proof (`prism rl export`, in the image of all other stages).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from prism_nemo.errors import InputError
from prism_nemo.launch.profile import Profile, seconds
from prism_nemo.launch.script import CODE, Job, interpreter
from prism_nemo.recipe import Recipe
from prism_nemo.recipe.check import model_shape


class RLStage(Protocol):
    """What this room needs to know of a stage of reinforcement learning."""

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> Mapping[str, Path]: ...


def runs_in_nemo_rl(recipe: Recipe, name: str) -> bool:
    """Whether the stage `name` is one of NeMo-RL's."""
    return recipe.rl.engine == "nemo_rl" and name in ("rl", "rl_base")


def work_folder(run: Path, name: str) -> Path:
    """Where NeMo-RL works for the stage `name`: configuration, prompts, checkpoints."""
    return run / f"{name}.nemo_rl"


def ray_job(run: Path, name: str) -> str:
    """Id of NeMo-RL's own job for the stage `name`, as `slurm/rl.sh` notes it; empty when none is waited for."""
    try:
        return (work_folder(run, name) / "ray_job").read_text().split()[0]
    except (FileNotFoundError, IndexError):
        return ""


def rl_jobs(stage: RLStage, recipe: Recipe, profile: Profile, run: Path) -> list[Job]:
    """The jobs of one stage. Raises InputError when the recipe names no prompts, or the profile no NeMo-RL or image,
    and for a combination that NeMo-RL could not run."""
    from prism_nemo.rl.settings import assignments

    _check_profile(stage, recipe, profile)
    work = work_folder(run, stage.name)
    policy, prompts = (stage.inputs[role].absolute() for role in ("policy", "prompts"))
    places = {"model": str(policy), "prompts": str(prompts), "out": str(work)}
    cluster = _cluster(recipe, profile.for_stage(stage.name, gpu=True), run, stage.name)
    _check_run(recipe, places, cluster)
    prism = ("env", "-C", CODE, interpreter(profile), "-m", "prism_nemo.cli.main", "rl")
    prepare = [*prism, "run", "--engine", "nemo_rl"]
    prepare += [word for key, value in places.items() for word in (f"--{key}", value)]
    prepare += [word for entry in cluster for word in ("--cluster", entry)]
    prepare += assignments(recipe.rl)
    follow = ["bash", f"{CODE}/slurm/rl.sh", str(run), stage.name, profile.nemo_rl, str(recipe.rl.steps)]
    last = f"{work}/checkpoints/step_{recipe.rl.steps}"
    export = [*prism, "export", last, "--out", str(run / stage.name)]
    plain: dict[str, Any] = {"ranks": 1, "arguments": (), "gpu": False}
    return [
        Job(stage=f"{stage.name}_config", command=tuple(prepare), **plain),
        Job(stage=stage.name, command=tuple(follow), container=False, **plain),
        Job(stage=f"{stage.name}_export", command=tuple(export), **plain),
    ]


def _check_profile(stage: RLStage, recipe: Recipe, profile: Profile) -> None:
    if not recipe.rl.prompts:
        raise InputError("rl.prompts names no file; `prism rl prompts` makes one, rl.prompts=FILE names it")
    if not profile.nemo_rl:
        raise InputError(
            f"profile {profile.name} has no nemo_rl: the checkout of NeMo-RL whose ray.sub starts {stage.name}"
        )
    if not profile.for_stage(stage.name, gpu=True).container_image:
        raise InputError(
            f"profile {profile.name} has no container_image under [stages.{stage.name}]: NeMo-RL needs its own"
        )


def _check_run(recipe: Recipe, places: dict[str, str], cluster: list[str]) -> None:
    from prism_nemo.rl.job import RLJob
    from prism_nemo.rl.nemo_rl.cluster import Policy
    from prism_nemo.rl.nemo_rl.config import render
    from prism_nemo.rl.settings import cluster_from

    section = dataclasses.replace(recipe.rl, prompts=places["prompts"])
    job = RLJob(model=places["model"], out=places["out"], rl=section)
    render(job, Policy(shape=model_shape(recipe)), cluster_from(cluster))


def _cluster(recipe: Recipe, profile: Profile, run: Path, name: str) -> list[str]:
    """Where it happens, as `prism rl run --cluster` takes it; what the recipe says wins over the profile."""
    limit = seconds(profile.time)
    values = {
        "nodes": recipe.parallel.nodes,
        "gpus_per_node": profile.gpus_per_node,
        "account": profile.account,
        "partition": profile.partition,
        "time": f"{limit // 3600:02d}:{limit // 60 % 60:02d}:{limit % 60:02d}",
        "job_name": f"{recipe.name}.{name}.ray",
        "image": profile.container_image,
        "mounts": ",".join([*profile.mounts, f"{run}:{run}"]),
        **profile.rl_cluster,
        **recipe.rl.cluster,
    }
    return [f"{key}={value}" for key, value in values.items() if value]

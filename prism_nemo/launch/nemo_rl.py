"""Reinforcement learning as jobs: NeMo-RL starts itself by its own ray.sub, in its own image, on all nodes.

Three jobs stand for the stage: one writes prompts, configuration and launch script (`prism rl run`), one submits that
script and waits, as often as its steps need slices (`slurm/rl.sh`, no container: it calls sbatch), and one turns the
last checkpoint into a Hugging Face folder with NeMo-RL's converter (`slurm/rl_export.sh`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from prism_nemo.errors import InputError
from prism_nemo.launch.profile import Profile, seconds
from prism_nemo.launch.script import CODE, Job, interpreter
from prism_nemo.recipe import Recipe


class RLStage(Protocol):
    """What this room needs to know of a stage of reinforcement learning."""

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> Mapping[str, Path]: ...


def runs_in_nemo_rl(recipe: Recipe, name: str) -> bool:
    """Whether the stage `name` is one of NeMo-RL's."""
    return recipe.rl.engine == "nemo_rl" and name in ("rl", "rl_base")


def rl_jobs(stage: RLStage, recipe: Recipe, arguments: Sequence[str], profile: Profile, run: Path) -> list[Job]:
    """The jobs of one stage. Raises InputError when the recipe names no prompts, or the profile no NeMo-RL or image."""
    if not recipe.rl.prompts:
        raise InputError("rl.prompts names no file; `prism rl prompts` makes one, rl.prompts=FILE names it")
    if not profile.nemo_rl:
        raise InputError(
            f"profile {profile.name} has no nemo_rl: the checkout of NeMo-RL whose ray.sub starts {stage.name}"
        )
    settings = profile.for_stage(stage.name, gpu=True)
    if not settings.container_image:
        raise InputError(
            f"profile {profile.name} has no container_image under [stages.{stage.name}]: NeMo-RL needs its own"
        )
    source, *overrides = arguments
    work = run / f"{stage.name}.nemo_rl"
    prepare = ["env", "-C", CODE, interpreter(profile), "-m", "prism_nemo.cli.main", "rl", "run", "--engine", "nemo_rl"]
    prepare += ["--recipe", source, "--model", str(stage.inputs["policy"]), "--prompts", str(stage.inputs["prompts"])]
    prepare += ["--out", str(work), *_cluster(recipe, settings, run, stage.name)]
    prepare += [entry.removeprefix("rl.") for entry in overrides if entry.startswith("rl.")]
    follow = ["bash", f"{CODE}/slurm/rl.sh", str(run), stage.name, profile.nemo_rl, str(recipe.rl.steps)]
    export = ["bash", f"{CODE}/slurm/rl_export.sh", str(run), stage.name]
    plain = {"ranks": 1, "arguments": (), "gpu": False}
    return [
        Job(stage=f"{stage.name}_config", command=tuple(prepare), **plain),  # type: ignore[arg-type]
        Job(stage=stage.name, command=tuple(follow), container=False, **plain),  # type: ignore[arg-type]
        Job(stage=stage.name, part="export", command=tuple(export), **plain),  # type: ignore[arg-type]
    ]


def _cluster(recipe: Recipe, profile: Profile, run: Path, name: str) -> list[str]:
    """Options of `prism rl run` for where it happens."""
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
    }
    return [word for key, value in values.items() if value for word in ("--cluster", f"{key}={value}")]

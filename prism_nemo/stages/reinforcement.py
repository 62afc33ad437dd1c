"""Reinforcement learning on the mid-trained model and, as the control, on the base."""

from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.models.facts import base_shape
from prism_nemo.recipe import Recipe
from prism_nemo.rl.job import RLJob
from prism_nemo.rl.settings import job_values
from prism_nemo.stages.stage import Progress, Stage

HYBRID_ROWS = 32
"""Rollouts in one pass of a hybrid: transformers' Mamba scan keeps chunk x chunk numbers per row and head."""


def stages(recipe: Recipe, run: Path) -> list[Stage]:
    """`rl` starts from the mid-trained model, `rl_base` from the base (paper, section 9).

    Raises InputError for a run on this machine without prompts; a cluster's are asked for when it is submitted.
    """
    if recipe.rl.engine == "trl" and not (recipe.data.rehearsal or recipe.rl.prompts):
        raise InputError("rl.prompts names no file; `prism rl prompts` makes one, rl.prompts=FILE names it")
    prompts = run / "corpus" / "problems" / "rl.jsonl" if recipe.data.rehearsal else Path(recipe.rl.prompts)
    return [
        _stage("rl", "GRPO on the mid-trained model", recipe, policy=run / "mt", prompts=prompts),
        _stage("rl_base", "GRPO on the base", recipe, policy=run / "base", prompts=prompts),
    ]


def _stage(name: str, does: str, recipe: Recipe, *, policy: Path, prompts: Path) -> Stage:
    settings = job_values(recipe.rl)
    RLJob.from_dict({**settings, "model": "", "prompts": "", "out": ""})  # what is wrong is said before anything runs

    def run(out: Path, progress: Progress) -> None:
        if recipe.rl.engine == "trl":
            _with_trl(recipe.model.family, settings, policy, prompts, out, progress)
        else:
            raise _needs_a_cluster(name)

    inputs = {"policy": policy, "prompts": prompts}
    return Stage(name=name, does=does, inputs=inputs, parameters=settings, run=run)


def _with_trl(
    family: str, settings: dict[str, Any], policy: Path, prompts: Path, out: Path, progress: Progress
) -> None:
    from prism_nemo.rl.trl import train_grpo

    rows = settings["prompts_per_step"] * settings["samples_per_prompt"]
    per_pass = HYBRID_ROWS if base_shape(family).hybrid and rows % HYBRID_ROWS == 0 else 0
    places = {"model": str(policy), "prompts": str(prompts), "out": str(out)}
    job = RLJob.from_dict({**settings, **places, "rollouts_per_pass": per_pass})
    train_grpo(job, report=lambda line: progress(line["step"], job.steps, f"reward {line['reward']:.3f}"))


def _needs_a_cluster(name: str) -> Exception:
    return InputError(
        f"stage {name} runs in NeMo-RL on a cluster: `prism rl run` writes its configuration and launch script; "
        "rl.engine=trl runs it here"
    )

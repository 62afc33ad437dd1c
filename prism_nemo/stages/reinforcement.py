"""Reinforcement learning on the mid-trained model and, as the control, on the base."""

import dataclasses
from pathlib import Path

from prism_nemo.errors import InputError
from prism_nemo.recipe import Recipe
from prism_nemo.rl.job import RLJob
from prism_nemo.rl.settings import training
from prism_nemo.stages.stage import Progress, Stage


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
    def run(out: Path, progress: Progress) -> None:
        if recipe.rl.engine == "trl":
            _with_trl(recipe, policy, prompts, out, progress)
        else:
            raise _needs_a_cluster(name)

    inputs = {"policy": policy, "prompts": prompts}
    return Stage(name=name, does=does, inputs=inputs, parameters=training(recipe.rl), run=run)


def _with_trl(recipe: Recipe, policy: Path, prompts: Path, out: Path, progress: Progress) -> None:
    from prism_nemo.rl.trl import train_grpo

    section = dataclasses.replace(recipe.rl, prompts=str(prompts))
    job = RLJob(model=str(policy), out=str(out), rl=section)
    train_grpo(job, report=lambda line: progress(line["step"], section.steps, f"reward {line['reward']:.3f}"))


def _needs_a_cluster(name: str) -> Exception:
    return InputError(
        f"stage {name} runs in NeMo-RL on a cluster: `prism rl run` writes its configuration and launch script; "
        "rl.engine=trl runs it here"
    )

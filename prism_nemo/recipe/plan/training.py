"""The plan of one training: who shares the work, what a GPU must hold, what it costs."""

from dataclasses import dataclass
from pathlib import Path

from prism_nemo.models.facts import Shape
from prism_nemo.recipe.parts import Parallel, Training
from prism_nemo.recipe.plan.budget import Budget, budget
from prism_nemo.recipe.plan.hardware import Gpu
from prism_nemo.recipe.plan.memory import StageMemory, stage_memory
from prism_nemo.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """One training stage of the recipe."""

    stage: str
    """pretrain, midtrain, long_context or long_context_attention."""
    training: Training
    parallel: Parallel
    """The recipe's layout, with the context parallelism of this stage."""
    memory: list[StageMemory]
    """Per GPU, one entry per pipeline stage."""
    budget: Budget


def trainings(recipe: Recipe) -> dict[str, Training]:
    """Stage -> its training, in the order of the chain."""
    named = {"pretrain": recipe.pretrain, "midtrain": recipe.midtrain, "long_context": recipe.long_context}
    if recipe.long_context and recipe.long_context.compare_attention:
        named["long_context_attention"] = recipe.long_context  # the same with fewer gradients: an upper bound
    return {name: training for name, training in named.items() if training is not None}


def training_plan(
    stage: str,
    training: Training,
    recipe: Recipe,
    sizes: Shape,
    gpu: Gpu,
    *,
    slice_hours: float,
    utilisation: float | None,
    measured: Path | None,
) -> TrainingPlan:
    """Memory and budget of one training; the arguments are those of `plan`."""
    parallel = recipe.parallel.of(training)
    plain = recipe.parallel.devices_per_node is None
    return TrainingPlan(
        stage=stage,
        training=training,
        parallel=parallel,
        memory=stage_memory(sizes, training, parallel, recipe.precision, plain=plain),
        budget=budget(
            sizes,
            training,
            parallel,
            recipe.precision,
            gpu,
            slice_hours=slice_hours,
            utilisation=utilisation,
            measured=measured,
        ),
    )

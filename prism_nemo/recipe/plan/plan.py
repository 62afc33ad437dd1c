"""`plan(recipe)`: what a run will need, before anything runs. No torch, no network, a fraction of a second."""

from dataclasses import dataclass
from pathlib import Path

from prism_nemo.errors import InputError
from prism_nemo.models.facts import Shape
from prism_nemo.recipe.check import model_shape
from prism_nemo.recipe.parts import Parallel, Training
from prism_nemo.recipe.plan.budget import Budget, budget
from prism_nemo.recipe.plan.checks import warnings
from prism_nemo.recipe.plan.disk import Disk, disk
from prism_nemo.recipe.plan.hardware import GPUS, Gpu
from prism_nemo.recipe.plan.memory import StageMemory, stage_memory
from prism_nemo.recipe.plan.parameters import total
from prism_nemo.recipe.plan.sources import SourcePlan, source_plans, source_warnings
from prism_nemo.recipe.presets import lacks
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The answer of `prism plan`."""

    recipe: str
    family: str
    parameters: int
    """Of the model; tied embeddings counted once."""
    precision: str
    gpu: Gpu | None
    """None: the run is on CPUs, time and fit are not estimated."""
    trainings: list[TrainingPlan]
    sources: list[SourcePlan]
    sources_note: str
    disk: Disk
    notes: list[str]
    """What the run goes without of the paper's setup."""
    warnings: list[str]


def plan(
    recipe: Recipe,
    *,
    gpu: str = "h100-80gb",
    slice_hours: float = 4.0,
    utilisation: float | None = None,
    measured: Path | None = None,
) -> Plan:
    """Tokens, memory, time, disk and warnings of a recipe.

    gpu: a name of `hardware.GPUS`; a recipe without devices per node (a rehearsal) is planned for CPUs instead.
    slice_hours: time limit of one job in the queue. utilisation: model FLOPs over the GPU's bf16 rate; None: from
    `measured`, a result of benchmarks/gpu/run.py, from the latest such result, or assumed. Raises InputError for an
    unknown GPU or model.
    """
    if gpu not in GPUS:
        raise InputError(f"no GPU '{gpu}'; known: {', '.join(GPUS)}")
    chip = None if recipe.parallel.devices_per_node is None else GPUS[gpu]
    sizes = model_shape(recipe)
    named = [("pretrain", recipe.pretrain), ("midtrain", recipe.midtrain), ("long_context", recipe.long_context)]
    if recipe.long_context and recipe.long_context.compare_attention:
        named.append(("long_context_attention", recipe.long_context))  # the same with fewer gradients: an upper bound
    runs = [(name, training) for name, training in named if training is not None]
    trainings = [
        _training(name, training, recipe, sizes, GPUS[gpu], slice_hours, utilisation, measured)
        for name, training in runs
    ]
    sources, note = source_plans(recipe)
    return Plan(
        recipe=recipe.name,
        family=recipe.model.family,
        parameters=total(sizes),
        precision=recipe.precision,
        gpu=chip,
        trainings=trainings,
        sources=sources,
        sources_note=note,
        disk=disk(recipe, sizes),
        notes=lacks(recipe.rl.engine, kl=recipe.rl.kl, reference_every=recipe.rl.reference_every),
        warnings=warnings(recipe, sizes, trainings, chip) + source_warnings(sources),
    )


def _training(
    name: str,
    training: Training,
    recipe: Recipe,
    sizes: Shape,
    gpu: Gpu,
    slice_hours: float,
    utilisation: float | None,
    measured: Path | None,
) -> TrainingPlan:
    parallel = recipe.parallel.of(training)
    plain = recipe.parallel.devices_per_node is None
    return TrainingPlan(
        stage=name,
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

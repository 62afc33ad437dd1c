"""`plan(recipe)`: what a run will need, before anything runs. No torch, no network, a fraction of a second."""

from dataclasses import dataclass
from pathlib import Path

from prism_nemo.errors import InputError
from prism_nemo.recipe.check import model_shape
from prism_nemo.recipe.plan.budget import SLICE_OVERHEAD
from prism_nemo.recipe.plan.checks import warnings
from prism_nemo.recipe.plan.disk import Disk, disk
from prism_nemo.recipe.plan.hardware import GPUS, Gpu
from prism_nemo.recipe.plan.parameters import total
from prism_nemo.recipe.plan.sources import SourcePlan, source_plans, source_warnings
from prism_nemo.recipe.plan.training import TrainingPlan, training_plan, trainings
from prism_nemo.recipe.precision import left_in_bf16
from prism_nemo.recipe.presets import lacks
from prism_nemo.recipe.recipe import Recipe


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
    """What FP8 leaves in bf16, and what the run goes without of the paper's setup."""
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
    unknown GPU, mixture or source, a slice in which nothing can be done, and a utilisation that cannot be.
    """
    _check_assumptions(gpu, slice_hours, utilisation)
    chip = None if recipe.parallel.devices_per_node is None else GPUS[gpu]
    sizes = model_shape(recipe)
    planned = [
        training_plan(
            stage,
            training,
            recipe,
            sizes,
            GPUS[gpu],
            slice_hours=slice_hours,
            utilisation=utilisation,
            measured=measured,
        )
        for stage, training in trainings(recipe).items()
    ]
    sources, note = source_plans(recipe)
    return Plan(
        recipe=recipe.name,
        family=recipe.model.family,
        parameters=total(sizes),
        precision=recipe.precision,
        gpu=chip,
        trainings=planned,
        sources=sources,
        sources_note=note,
        disk=disk(recipe, sizes),
        notes=[
            *left_in_bf16(recipe.precision, hybrid=sizes.hybrid),
            *lacks(recipe.rl.engine, kl=recipe.rl.kl, reference_every=recipe.rl.reference_every),
        ],
        warnings=warnings(recipe, sizes, planned, chip) + source_warnings(sources),
    )


def _check_assumptions(gpu: str, slice_hours: float, utilisation: float | None) -> None:
    if gpu not in GPUS:
        raise InputError(f"no GPU '{gpu}'; known: {', '.join(GPUS)}")
    if slice_hours * 3600 <= SLICE_OVERHEAD:
        raise InputError(
            f"--slice-hours {slice_hours:g}: starting and saving alone take {SLICE_OVERHEAD / 60:.0f} minutes; use more"
        )
    if utilisation is not None and not 0 < utilisation <= 2:
        raise InputError(f"--utilisation {utilisation:g} is a share of the bf16 rate, such as 0.4 (FP8: at most 2)")

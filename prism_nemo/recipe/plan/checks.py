"""What is wrong with a plan, one line each, with what to change."""

from prism_nemo.models.facts import Shape
from prism_nemo.recipe.parts import LongContext, Training
from prism_nemo.recipe.plan.flops import attention_core, forward
from prism_nemo.recipe.plan.hardware import GIB, Gpu
from prism_nemo.recipe.plan.layout import faults, suggest
from prism_nemo.recipe.plan.training import TrainingPlan
from prism_nemo.recipe.precision import mixed_precision
from prism_nemo.recipe.recipe import Recipe

GENERATIONS = ("ampere", "hopper", "blackwell")
LARGE_CORE = 0.3
"""Share of the FLOPs in the attention core from which FP8's assumed gain is misleading."""


def warnings(recipe: Recipe, sizes: Shape, trainings: list[TrainingPlan], gpu: Gpu | None) -> list[str]:
    """All of them; an empty list is a plan that can be started."""
    found = _precision(recipe, sizes, gpu)
    for training in trainings:
        if training.stage == "long_context_attention":  # of long_context it is said already
            continue
        found += [f"{training.stage}: {line}" for line in _training(recipe, sizes, training, gpu)]
    return found


def _training(recipe: Recipe, sizes: Shape, planned: TrainingPlan, gpu: Gpu | None) -> list[str]:
    training, parallel = planned.training, planned.parallel
    found = faults(sizes, training, parallel, recipe.model.family)
    if found and gpu is not None:
        found[-1] += _proposal(recipe, sizes, planned, gpu)
    step = training.seq_length * training.global_batch
    if training.tokens % step:
        found.append(f"{training.tokens:,} tokens are no whole number of steps of {step:,}; the rest is not trained on")
    if training.warmup_steps >= planned.budget.steps:
        found.append(f"warm-up of {training.warmup_steps} steps is not shorter than the run of {planned.budget.steps}")
    if sizes.rope_theta and 0 < sizes.max_positions < training.seq_length and not _stretched(training):
        found.append(
            f"sequences of {training.seq_length:,} tokens; the model knows {sizes.max_positions:,} rotary positions;"
            " shorten them, or set long_context.rope_scaling or rope_base"
        )
    if parallel.devices_per_node and parallel.tensor > parallel.devices_per_node:
        found.append(
            f"tensor parallel {parallel.tensor} crosses nodes of {parallel.devices_per_node} GPUs, which is slow;"
            f" use parallel.tensor={parallel.devices_per_node} or less"
        )
    if parallel.tensor > 1 and not parallel.sequence:
        found.append(
            "tensor parallel without sequence parallel keeps norms and residuals on every rank; set"
            " parallel.sequence=true"
        )
    if parallel.recompute == "selective":
        found.append("selective recomputation repeats the attention core only; with flash attention it saves no memory")
    if gpu is not None:
        found += _fp8_gain(recipe, sizes, training) + _fit(recipe, sizes, planned, gpu)
    return found


def _fp8_gain(recipe: Recipe, sizes: Shape, training: Training) -> list[str]:
    """The gain that the plan reckons with is that of 8k, where the attention core is a small part."""
    core = sizes.pattern.count("*") * attention_core(sizes, training.seq_length)
    share = core / forward(sizes, training.seq_length)
    if not mixed_precision(recipe.precision, hybrid=sizes.hybrid).fp8 or share < LARGE_CORE:
        return []
    return [f"{share:.0%} of the FLOPs are the attention core's, which FP8 does not speed up: the hours are too few"]


def _stretched(training: Training) -> bool:
    """Whether the recipe says how positions beyond the known ones are numbered."""
    return isinstance(training, LongContext) and bool(training.rope_scaling or training.rope_base)


def _fit(recipe: Recipe, sizes: Shape, planned: TrainingPlan, gpu: Gpu) -> list[str]:
    worst = max(range(len(planned.memory)), key=lambda number: planned.memory[number].total)
    need = planned.memory[worst].total
    if need <= gpu.memory:
        return []
    line = f"does not fit: pipeline stage {worst} needs {need / GIB:.1f} GiB of {gpu.memory / GIB:.1f} GiB"
    return [line + (_proposal(recipe, sizes, planned, gpu) or "; no layout of these nodes does, take more of them")]


def _proposal(recipe: Recipe, sizes: Shape, planned: TrainingPlan, gpu: Gpu) -> str:
    """The overrides that make a layout which runs and fits, or nothing."""
    other = suggest(sizes, planned.training, recipe.parallel, recipe.precision, gpu)
    if other is None:
        return ""
    keys = {key: getattr(other, key) for key in ("tensor", "pipeline", "context", "sequence", "recompute")}
    own = {key for key in ("context", "recompute") if getattr(planned.training, key)}
    changed = [
        f"{planned.stage if key in own else 'parallel'}.{key}={value}"
        for key, value in keys.items()
        if value != getattr(planned.parallel, key)
    ]
    return f"; this does: {' '.join(changed).replace('True', 'true').replace('False', 'false')}"


def _precision(recipe: Recipe, sizes: Shape, gpu: Gpu | None) -> list[str]:
    row = mixed_precision(recipe.precision, hybrid=sizes.hybrid)
    if recipe.precision == "fp32" and gpu is not None:
        return ["precision fp32 is a rehearsal's: time is planned at the GPU's bf16 rate, which fp32 does not reach"]
    if not row.fp8:
        return []
    if gpu is None:
        return [f"precision {recipe.precision} needs a GPU ({row.needs} or newer)"]
    found = []
    if GENERATIONS.index(gpu.generation) < GENERATIONS.index(row.needs):
        found.append(f"precision {recipe.precision} needs {row.needs} or newer, {gpu.name} is {gpu.generation}")
    if recipe.precision == "fp8_delayed" and sizes.hybrid:
        found.append(
            "fp8_delayed cannot keep the first and last layers of a hybrid in bf16 (megatron-core core/fp8_utils.py);"
            " use precision=fp8_current"
        )
    return found

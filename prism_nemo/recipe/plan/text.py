"""A plan as lines for a terminal, and as plain values for a program."""

from dataclasses import asdict, replace
from typing import Any

from prism_nemo.recipe.plan.hardware import GIB
from prism_nemo.recipe.plan.plan import Plan
from prism_nemo.recipe.plan.sources import SourcePlan
from prism_nemo.recipe.plan.training import TrainingPlan


def lines(plan: Plan) -> list[str]:
    """The whole plan, at most 120 columns."""
    where = plan.gpu.name if plan.gpu else "CPUs"
    out = [f"{plan.recipe}: {plan.family}, {plan.parameters:,} parameters, {plan.precision}, {where}"]
    for number, training in enumerate(plan.trainings):
        before = plan.trainings[number - 1] if number else None
        same = before is not None and replace(before, stage=training.stage) == training
        out += [
            "",
            *(
                [f"{training.stage}: the same once more at most, with attention alone trained"]
                if same
                else _training(training, plan)
            ),
        ]
    out += ["", *_all_trainings(plan), *_sources(plan), "", _disk(plan)]
    if plan.notes:
        out += ["", *(f"note: {line}" for line in plan.notes)]
    if plan.warnings:
        out += ["", *(f"warning: {line}" for line in plan.warnings)]
    return out


def to_dict(plan: Plan) -> dict[str, Any]:
    """Every figure of the plan, sums included."""
    made = asdict(plan)
    for planned, entry in zip(plan.trainings, made["trainings"], strict=True):
        for stage, memory in zip(planned.memory, entry["memory"], strict=True):
            memory["total"] = stage.total
    for source, entry in zip(plan.sources, made["sources"], strict=True):
        entry["epochs"] = source.epochs
    made["disk"]["total"] = plan.disk.total
    return made


def _training(planned: TrainingPlan, plan: Plan) -> list[str]:
    training, parallel, cost = planned.training, planned.parallel, planned.budget
    accumulated = training.global_batch / (training.micro_batch * max(1, parallel.data))
    out = [
        f"{planned.stage}: {_count(training.tokens)} tokens in {cost.steps:,} steps of {training.global_batch} x"
        f" {training.seq_length:,}; {cost.step_flops:.3g} FLOPs a step",
        f"  {_many(parallel.world, 'rank')} on {_many(parallel.nodes, 'node')}: tensor {parallel.tensor}"
        f" x pipeline {parallel.pipeline} x context {parallel.context} x data {parallel.data}",
        f"  {accumulated:g} micro batch{'es' if accumulated != 1 else ''} of {training.micro_batch}"
        f"{', sequence parallel' if parallel.sequence else ''}, recompute {parallel.recompute}",
        "  GiB per rank   weights  gradients  optimizer  activations  workspace  reserve    total",
    ]
    for number, stage in enumerate(planned.memory):
        parts = (stage.weights, stage.gradients, stage.optimizer, stage.activations, stage.workspace, stage.reserve)
        cells = "".join(
            f"{value / GIB:>{width}.{2 if plan.gpu is None else 1}f}"
            for value, width in zip((*parts, stage.total), (10, 11, 11, 13, 11, 9, 9), strict=True)
        )
        out.append(f"    stage {number:<4}" + cells)
    if plan.gpu is not None:
        out.append(
            f"  {cost.step_seconds:.2f} s a step, {cost.tokens_per_second_per_gpu:,.0f} tokens/s per GPU:"
            f" {cost.hours:.1f} h, {cost.gpu_hours:,.0f} GPU-hours, {_many(cost.slices, 'slice')}"
        )
        rate = f"{plan.gpu.bf16_flops / 1e12:.0f} TFLOP/s ({cost.utilisation_from})"
        out.append(f"  at {cost.utilisation:.0%} of the data sheet's {rate}")
    return out


def _sources(plan: Plan) -> list[str]:
    if not plan.sources:
        return [f"sources: {plan.sources_note}"]
    out = []
    for stage in dict.fromkeys(source.stage for source in plan.sources):
        out.append(f"{f'sources of {stage}':34s}  domain     share   tokens   there are  epochs")
        out += [_source(source) for source in plan.sources if source.stage == stage]
    return out


def _source(source: SourcePlan) -> str:
    there = f"{source.population / 1e9:.2f}B" if source.population else "unknown"
    epochs = f"{source.epochs:.2f}" if source.epochs is not None else "-"
    return (
        f"{source.name:34s}  {source.domain:9s}  {source.share:5.1%}  {source.tokens / 1e9:6.2f}B  {there:>9s}"
        f"  {epochs:>6s}"
    )


def _all_trainings(plan: Plan) -> list[str]:
    """Their sum, where a GPU's time is planned and there are several."""
    if plan.gpu is None or len(plan.trainings) == 1:
        return []
    costs = [planned.budget for planned in plan.trainings]
    hours, gpu_hours = sum(cost.hours for cost in costs), sum(cost.gpu_hours for cost in costs)
    return [f"trainings together: {hours:.1f} h, {gpu_hours:,.0f} GPU-hours", ""]


def _disk(plan: Plan) -> str:
    parts = plan.disk
    return (
        f"disk: {_size(parts.shards)} token shards, {_size(parts.checkpoints)} checkpoints"
        f" ({_size(parts.checkpoint)} each), {_size(parts.rl_checkpoints)} of RL ({_size(parts.rl_checkpoint)} each),"
        f" {_size(parts.exports)} weights: {_size(parts.total)}"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _count(tokens: float) -> str:
    for unit in ("", "k", "M"):
        if tokens < 1000:
            return f"{tokens:.3g}{unit}"
        tokens /= 1000
    return f"{tokens:.3g}B"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"

"""Time, GPU-hours and slices of the queue."""

import math
from dataclasses import dataclass
from pathlib import Path

from prism_nemo.models.facts import Shape
from prism_nemo.recipe.parts import Parallel, Precision, Training
from prism_nemo.recipe.plan.flops import forward, step
from prism_nemo.recipe.plan.hardware import Gpu
from prism_nemo.recipe.plan.measured import utilisation as find_utilisation
from prism_nemo.recipe.precision import mixed_precision

SLICE_OVERHEAD = 600.0
"""Seconds of every slice that do not train: start, loading, saving at its end. Assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a training run costs."""

    steps: int
    step_flops: int
    """Model FLOPs of a step over all ranks, without recomputation."""
    utilisation: float
    """Model FLOPs per second over the GPU's bf16 rate."""
    utilisation_from: str
    """given, assumed, or measured (on what, in which file)."""
    step_seconds: float
    tokens_per_second_per_gpu: float
    hours: float
    gpu_hours: float
    slices: int
    """Jobs of the queue's time limit one after the other."""


def budget(
    sizes: Shape,
    training: Training,
    parallel: Parallel,
    precision: Precision,
    gpu: Gpu,
    *,
    slice_hours: float,
    utilisation: float | None = None,
    measured: Path | None = None,
) -> Budget:
    """Time follows from FLOPs and a utilisation; recomputation and pipeline bubbles are added to it.

    utilisation: given; otherwise measured (in this file, or the latest there is) or assumed.
    """
    kind = "hybrid" if sizes.hybrid else "dense"
    fp8 = mixed_precision(precision, hybrid=sizes.hybrid).fp8
    rate, source = utilisation or 0.0, "given"
    if not utilisation:
        rate, source = find_utilisation(kind, precision, gpu, fp8=fp8, file=measured)
    flops = step(sizes, training.seq_length, training.global_batch)
    done = flops + (forward(sizes, training.seq_length) * training.global_batch if parallel.recompute == "full" else 0)
    accumulated = max(1, training.global_batch // (training.micro_batch * max(1, parallel.data)))
    bubble = (parallel.pipeline - 1) / accumulated  # 1F1B, Narayanan et al. 2021 (arXiv 2104.04473), section 2.2
    seconds = done / (parallel.world * gpu.bf16_flops * rate) * (1 + bubble)
    steps = training.tokens // (training.seq_length * training.global_batch)
    hours = steps * seconds / 3600
    return Budget(
        steps=steps,
        step_flops=flops,
        utilisation=rate,
        utilisation_from=source,
        step_seconds=seconds,
        tokens_per_second_per_gpu=training.seq_length * training.global_batch / seconds / parallel.world,
        hours=hours,
        gpu_hours=hours * parallel.world,
        slices=max(1, math.ceil(hours * 3600 / (slice_hours * 3600 - SLICE_OVERHEAD))),
    )

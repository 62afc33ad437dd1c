"""What the plan assumes of a GPU. Nothing here was measured by this project unless it says so."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU model."""

    name: str
    generation: str
    """ampere, hopper, blackwell."""
    memory: float
    """Bytes a process can use at most, as the driver reports them."""
    bf16_flops: float
    """Dense bf16 matrix operations per second on the data sheet."""


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="a100-80gb", generation="ampere", memory=79.1 * GIB, bf16_flops=312e12),
        Gpu(name="h100-80gb", generation="hopper", memory=79.2 * GIB, bf16_flops=989e12),
        Gpu(name="h200", generation="hopper", memory=139.8 * GIB, bf16_flops=989e12),
        Gpu(name="b200", generation="blackwell", memory=178.4 * GIB, bf16_flops=2250e12),
    )
}
"""Data sheets of NVIDIA; memory as torch reports it."""

RESERVE = 5 * GIB
"""Bytes per GPU for CUDA context, NCCL buffers, Transformer Engine workspaces and fragmentation. Assumed."""

UTILISATION = {"dense": 0.40, "hybrid": 0.32}
"""Model FLOPs per second over the data sheet's bf16 rate, not over the lower one of a large matrix product, which
benchmarks/gpu measures and its table goes by. Assumed: 0.38 to 0.43 is what the Llama 3 report (arXiv 2407.21783, table
4) reached on H100s; a hybrid spends a part of its step in memory-bound scans."""

FP8_SPEEDUP = {"dense": 1.6, "hybrid": 1.25}
"""Assumed. Published for LLaMA-3 8B on 8 H100s at 8k, FP8 current scaling: 744 TFLOP/s, 0.75 of the bf16 rate
(Megatron-Bridge, docs/performance-summary.md, 25.11); this is taken as an upper end, not as the plan's number."""

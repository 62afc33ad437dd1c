"""What the plan's memory test runs inside Megatron ranks."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def held(cases: list[tuple[Path, int, int, str]]) -> list[list[dict[str, int]]]:
    """For each (hf, tensor, pipeline, precision): what every rank holds after an optimizer step, in bytes."""
    from prism_nemo.engine.cpu import adam

    adam.mend()
    return [_of_all_ranks(_held(*case)) for case in cases]


def _of_all_ranks(mine: dict[str, int]) -> list[dict[str, int]]:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found


def _held(hf: Path, tensor: int, pipeline: int, precision: str) -> dict[str, int]:
    from megatron.core.distributed import DistributedDataParallelConfig
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

    from prism_nemo.checkpoints.megatron import padding
    from prism_nemo.engine.setup import build_provider, set_up_parallel_groups

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    _, provider = build_provider(hf, tensor=tensor, pipeline=pipeline, dtype=dtype, overrides=padding(hf, tensor))
    set_up_parallel_groups(provider, 0)
    ddp = DistributedDataParallelConfig(use_distributed_optimizer=True, grad_reduce_in_fp32=True)
    (model,) = provider.provide_distributed_model(ddp_config=ddp, wrap_with_ddp=True)
    config = OptimizerConfig(
        optimizer="adam", lr=1e-3, use_distributed_optimizer=True, params_dtype=dtype, bf16=precision == "bf16"
    )
    optimizer = get_megatron_optimizer(config, [model])
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.main_grad.fill_(1.0)
    optimizer.step()
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "weights": sum(parameter.nbytes for parameter in parameters),
        "gradients": sum(parameter.main_grad.nbytes for parameter in parameters),
        "optimizer": _optimizer_bytes(optimizer, main_weights=precision == "bf16"),
    }


def _optimizer_bytes(optimizer: Any, *, main_weights: bool) -> int:
    total = 0
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for parameter, state in part.optimizer.state.items():
            total += sum(tensor.nbytes for name, tensor in state.items() if name != "step")
            total += parameter.nbytes if main_weights else 0
    return total

"""Seconds and memory of mid-training steps in the engine: Megatron-Bridge's whole loop, logging and data included."""

import contextlib
import itertools
import json
import struct
import time
from pathlib import Path
from typing import Any

WARM_UP = 2
"""Steps whose time does not count: kernels are compiled and chosen, the allocator grows."""


class EnoughError(Exception):
    """Ends a run without the checkpoint that would follow its last step."""


def run(model: Path, case: Any, precision: str, folder: Path, *, steps: int, stock: bool, recompute: str) -> Any:
    """{"seconds": of each counted step, "peak_bytes": most memory that tensors took, None on a CPU}."""
    from prism_nemo.engine import local
    from prism_nemo.engine.job import TrainJob

    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    write_random_tokens(folder / "random", vocabulary, count=(steps + WARM_UP + 2) * case.length * case.global_batch)
    (folder / "blend.json").write_text(json.dumps({"train": [1.0, "random"]}))
    job = TrainJob(
        model=str(model),
        blend=str(folder / "blend.json"),
        checkpoints=str(folder / "run"),
        seq_length=case.length,
        global_batch=case.global_batch,
        micro_batch=case.micro_batch,
        steps=steps + WARM_UP + 1,
        precision=precision,
        recompute=recompute,
    )
    return local.call_local(in_rank, job.to_json(), stock, steps)


def in_rank(text: str, stock: bool, steps: int) -> dict[str, Any]:
    """In a process with Megatron; wall clock between the lines of progress.jsonl, each of which waits for a loss."""
    import torch

    from prism_nemo.engine import progress, train
    from prism_nemo.engine.job import TrainJob
    from prism_nemo.engine.setup import has_gpu

    stamps: list[float] = []

    def note(line: dict[str, Any]) -> None:
        stamps.append(time.perf_counter())
        if len(stamps) == steps + WARM_UP:
            raise EnoughError

    progress.listener = note
    if stock:
        ours = train.container
        train.container = lambda job: with_stock_settings(ours(job))
    with contextlib.suppress(EnoughError):
        train.train(TrainJob.from_json(text))
    spans = [after - before for before, after in itertools.pairwise(stamps)]
    return {"seconds": spans[WARM_UP - 1 :], "peak_bytes": torch.cuda.max_memory_allocated() if has_gpu() else None}


def with_stock_settings(config: Any) -> Any:
    """What Megatron-Bridge's own recipes set and one GPU can have, in the place of the engine's choices.

    Source: megatron-bridge 0.6.2, bridge/recipes/llama/h100/llama3.py (llama31_8b_pretrain_2gpu_h100_bf16_config) and
    recipes/common.py; the recipes themselves cannot be imported without a dozen packages of other models.
    """
    from prism_nemo.engine.setup import has_gpu

    config.train.manual_gc = True
    config.train.manual_gc_interval = 100
    config.ddp.average_in_collective = True
    if has_gpu():
        config.model.cross_entropy_loss_fusion = True
        config.model.cross_entropy_fusion_impl = "te"
        config.dataset.num_workers = 8
    return config


def write_random_tokens(prefix: Path, vocabulary: int, count: int) -> None:
    """One document of random tokens as Megatron's .bin/.idx (version 1, uint16, or int32 for a large vocabulary)."""
    import numpy as np

    kind, code = (np.uint16, 8) if vocabulary < 65_500 else (np.int32, 4)
    np.random.default_rng(0).integers(1, vocabulary, count, dtype=kind).tofile(prefix.with_suffix(".bin"))
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, 1, 2)
    body = np.int32(count).tobytes() + np.int64(0).tobytes() + np.array([0, 1], dtype=np.int64).tobytes()
    prefix.with_suffix(".idx").write_bytes(header + body)

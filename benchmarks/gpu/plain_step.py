"""The same model in transformers with torch's attention and AdamW in a plain loop, as a short script has it.

Weights, gradients and moments in bf16: less memory traffic than mixed precision with fp32 main weights, so the loop is
given the easier work. Hybrids use the Mamba kernels where transformers finds them.
"""

import itertools
import json
import time
from pathlib import Path
from typing import Any

WARM_UP = 2


def run(model: Path, case: Any, *, steps: int, compiled: bool) -> Any:
    """{"seconds": of each counted step, "peak_bytes": ...} as engine_step.run."""
    from prism_nemo.engine import local

    batch = {"length": case.length, "micro": case.micro_batch, "sequences": case.global_batch}
    return local.call_local(in_rank, str(model), batch, steps, compiled)


def in_rank(model_folder: str, batch: dict[str, int], steps: int, compiled: bool) -> dict[str, Any]:
    """Forward with labels, backward per micro batch; clip; AdamW; the loss read at the end of every step."""
    import torch
    from transformers import AutoModelForCausalLM

    from prism_nemo.engine.setup import has_gpu
    from prism_nemo.models.pico import hf_config

    gpu = has_gpu()
    config = hf_config(json.loads((Path(model_folder) / "config.json").read_text()))
    with torch.device("cuda" if gpu else "cpu"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if gpu else torch.float32, attn_implementation="sdpa"
        )
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    passes = batch["sequences"] // batch["micro"]
    shape = (passes, batch["micro"], batch["length"])
    tokens = torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(model.device)
    stamps = [time.perf_counter()]
    for _ in range(steps + WARM_UP):
        loss = 0.0
        for ids in tokens:
            part = forward(input_ids=ids, labels=ids, use_cache=False).loss / passes
            part.backward()
            loss = loss + part.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        float(loss)
        stamps.append(time.perf_counter())
    spans = [after - before for before, after in itertools.pairwise(stamps)]
    return {"seconds": spans[WARM_UP:], "peak_bytes": torch.cuda.max_memory_allocated() if gpu else None}

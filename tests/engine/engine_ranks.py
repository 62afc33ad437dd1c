"""What tests run in ranks: importable by name, so it stands outside the test files."""

import os
import signal
import sys
from pathlib import Path
from typing import Any


def whoami(word: str) -> tuple[str, str, bool]:
    import torch

    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    return word, f"{os.environ['RANK']}/{int(total)}", "megatron.bridge.training.pretrain" in sys.modules


def fail_in_rank(rank: int) -> None:
    import torch

    if torch.distributed.get_rank() == rank:
        raise ValueError("the pipe is broken\nsecond line")
    torch.distributed.barrier()


def die_in_rank(rank: int) -> None:
    import torch

    if torch.distributed.get_rank() == rank:
        os.kill(os.getpid(), 9)
    torch.distributed.barrier()


def ask_to_stop(process: int) -> None:
    """A request that this rank does not hear, as one that comes after its work does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(process, signal.SIGTERM)


def write_pid_and_sleep(file: str) -> None:
    import time

    Path(file).write_text(str(os.getpid()))
    time.sleep(120)


def logits(hf: str, ids: list[list[int]], tensor: int = 1) -> Any:
    """Megatron's logits (b, s, vocabulary) of a Hugging Face folder, as nested lists from rank 0."""
    import torch
    from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region

    from prism_nemo.engine import build_model

    stages, _ = build_model(hf, tensor=tensor)
    tokens = torch.tensor(ids)
    positions = torch.arange(tokens.shape[1])[None].expand_as(tokens)
    with torch.no_grad():
        out = stages[0].eval()(tokens, positions, None)
        if tensor > 1:
            out = gather_from_tensor_model_parallel_region(out)
    return out.float().numpy()


def parameter_names(hf: list[str]) -> list[list[str]]:
    """Names of the parameters of each model."""
    from prism_nemo.engine import build_model

    return [[name for name, _ in build_model(path, load_weights=False)[0][0].named_parameters()] for path in hf]


def optimized(hf: str, trainable: tuple[str, ...]) -> tuple[list[str], int, int, int]:
    """(names left trainable, their elements, elements of the first moments, of the gradient buffers) after a step."""
    import torch
    from megatron.core.distributed import DistributedDataParallelConfig
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

    from prism_nemo.engine.config import freeze
    from prism_nemo.engine.cpu import adam
    from prism_nemo.engine.setup import build_provider, set_up_parallel_groups

    adam.mend()
    _, provider = build_provider(hf, dtype=torch.float32)
    provider.register_pre_wrap_hook(lambda stages: freeze(stages, trainable))
    set_up_parallel_groups(provider, 0)
    ddp = DistributedDataParallelConfig(use_distributed_optimizer=True)
    (model,) = provider.provide_distributed_model(ddp_config=ddp, wrap_with_ddp=True)
    optimizer = get_megatron_optimizer(
        OptimizerConfig(optimizer="adam", lr=1e-3, use_distributed_optimizer=True, params_dtype=torch.float32), [model]
    )
    left = {name: parameter for name, parameter in model.module.named_parameters() if parameter.requires_grad}
    for parameter in left.values():
        parameter.main_grad.fill_(1.0)
    optimizer.step()
    parts = getattr(optimizer, "chained_optimizers", [optimizer])
    moments = [state["exp_avg"].numel() for part in parts for state in part.optimizer.state.values()]
    gradients = sum(buffer.numel_unpadded for buffer in model.buffers)
    return list(left), sum(parameter.numel() for parameter in left.values()), sum(moments), gradients


def weight_decay_groups(hf: str) -> tuple[list[str], list[str]]:
    """Names of the parameters with and without weight decay, as Megatron groups them for a job."""
    from megatron.bridge.training.config import OptimizerConfig
    from megatron.core.optimizer import get_standard_config_overrides

    from prism_nemo.engine import build_model

    (stage,), _ = build_model(hf, load_weights=False)
    overrides = get_standard_config_overrides(OptimizerConfig(optimizer="adam", lr=1e-3, weight_decay=0.1))
    left = [name for name, p in stage.named_parameters() if any(key.matches(p, name) for key in overrides)]
    return [name for name, _ in stage.named_parameters() if name not in left], left


def document_logits(hf: str, documents: list[list[int]]) -> tuple[Any, Any, list[Any]]:
    """(logits of the joined documents, of the isolated ones, of each alone), each (tokens, vocabulary)."""
    import torch
    from megatron.bridge.training.utils.packed_seq_utils import get_packed_seq_params

    from prism_nemo.engine import build_model
    from prism_nemo.engine.documents import isolated

    (stage,), _ = build_model(hf)
    stage.eval()

    def run(tokens: torch.Tensor, **more: Any) -> Any:
        with torch.no_grad():
            return stage(tokens, torch.arange(tokens.shape[1])[None], None, **more).reshape(tokens.shape[1], -1).numpy()

    tokens = torch.tensor([[token for document in documents for token in document]])
    (batch,) = isolated(iter([{"tokens": tokens}]), 0)
    packed = get_packed_seq_params(
        {k: v for k, v in batch.items() if k != "tokens"} | {"total_tokens": tokens.shape[1]}
    )
    return run(tokens), run(tokens, packed_seq_params=packed), [run(torch.tensor([d])) for d in documents]

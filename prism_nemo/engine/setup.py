"""Making Megatron importable and runnable on this machine, and building a model with the layers that fit it."""

import functools
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_nemo.engine import positions
from prism_nemo.errors import InputError, missing_package
from prism_nemo.models.limits import check_parallel

VERSIONS = {"megatron-core": "0.19.2", "megatron-bridge": "0.6.2", "transformers": "5.12.1"}
"""The versions whose internals the CPU platform was checked against."""

_prepared = False


def prepare() -> None:
    """Make Megatron importable; call before anything imports `megatron`. Idempotent; no-op where a GPU is visible.

    Raises InputError when a package of the engine is missing or has another version than the one supported.
    """
    global _prepared
    if not has_gpu():
        _forget_attention_kernels()
    if _prepared:
        return
    _check_versions()
    if not has_gpu():
        from prism_nemo.engine.cpu import platform, standins

        platform.install()
        standins.hide()
        standins.install()
        _quiet_imports()
    _prepared = True


@functools.cache
def has_gpu() -> bool:
    """Whether Megatron runs on a GPU here; asked once, before the platform answers for torch.cuda."""
    import torch

    return torch.cuda.is_available()


def _forget_attention_kernels() -> None:
    """Megatron notes a model's attention kernel in the environment and refuses another later; none is used here."""
    for variable in ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN"):
        os.environ.pop(variable, None)


def _quiet_imports() -> None:
    """Megatron warns a dozen times that Transformer Engine and Apex are missing: here they are meant to be."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(megatron|modelopt)\.")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    logging.getLogger("megatron.bridge.utils.import_utils").addFilter(lambda record: False)


def _check_versions() -> None:
    for package, wanted in VERSIONS.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise missing_package(package, "training", f"pip install --no-deps {package}=={wanted}") from None
        if found != wanted and not has_gpu():
            raise InputError(f"{package} {found} is installed, the engine is made for {wanted}; install that version")


def build_model(
    hf: str | Path,
    *,
    tensor: int = 1,
    pipeline: int = 1,
    context: int = 1,
    sequence_parallel: bool = False,
    dtype: Any = None,
    load_weights: bool = True,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[list[Any], Any]:
    """The Megatron model of a Hugging Face folder and the AutoBridge that made it.

    hf: folder with config.json (and, with `load_weights`, safetensors). dtype: torch dtype of the parameters, fp32 when
    not given. overrides: further fields of the Megatron-Bridge provider. Returns (list of this rank's pipeline stages,
    not wrapped for data parallelism; bridge). Call it in every rank of an initialized process group, or in a single
    process without one (it is set up). Raises InputError for a layout or a layer that cannot be had here.
    """
    import torch

    bridge, provider = build_provider(
        hf,
        tensor=tensor,
        pipeline=pipeline,
        context=context,
        sequence_parallel=sequence_parallel,
        dtype=dtype or torch.float32,
        load_weights=load_weights,
        overrides=overrides,
    )
    ensure_process_group()
    set_up_parallel_groups(provider, seed)
    return provider.provide_distributed_model(wrap_with_ddp=False), bridge


def build_provider(
    hf: str | Path,
    *,
    tensor: int = 1,
    pipeline: int = 1,
    context: int = 1,
    sequence_parallel: bool = False,
    dtype: Any,
    load_weights: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    """(AutoBridge, finalized Megatron-Bridge provider with this machine's layers); no process group needed."""
    import torch

    prepare()
    _check_model(Path(hf), tensor, pipeline, context)
    import megatron.bridge.models.conversion.auto_bridge as auto_bridge

    importlib.import_module("prism_nemo.models.bridges")  # registers the bridges that Megatron-Bridge lacks
    bridge, scaled = _auto_bridge(auto_bridge.AutoBridge, Path(hf), load_weights)
    provider = bridge.to_megatron_provider(load_weights=load_weights)
    settings = {
        "tensor_model_parallel_size": tensor,
        "pipeline_model_parallel_size": pipeline,
        "context_parallel_size": context,
        "sequence_parallel": sequence_parallel and tensor > 1,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": dtype == torch.bfloat16,
        "fp16": False,
        **(overrides or {}),
    }
    for name, value in settings.items():
        if not hasattr(provider, name):
            raise InputError(f"{type(provider).__name__} has no field '{name}'")
        setattr(provider, name, value)
    if not has_gpu():
        from prism_nemo.engine.cpu import specs

        specs.apply(provider)
    if scaled is not None:
        positions.apply(provider, scaled)
    provider.finalize()
    return bridge, provider


def _check_model(hf: Path, tensor: int, pipeline: int, context: int) -> None:
    if not (hf / "config.json").is_file():
        raise InputError(f"{hf} holds no config.json; a Hugging Face model folder is needed")
    config = json.loads((hf / "config.json").read_text())
    check_parallel(config, tensor=tensor, pipeline=pipeline, context=context, name=str(hf))


def _auto_bridge(auto_bridge: Any, hf: Path, load_weights: bool) -> tuple[Any, Any]:
    """Megatron-Bridge's AutoBridge, and the configuration with the rotary scaling that it was not shown, or None."""
    from transformers import AutoConfig

    config, scaled = positions.left_out(AutoConfig.from_pretrained(str(hf)))
    if not load_weights:
        return auto_bridge.from_hf_config(config), scaled
    bridge = auto_bridge.from_hf_pretrained(str(hf))
    bridge.hf_pretrained.config = config
    return bridge, scaled


def set_up_parallel_groups(provider: Any, seed: int) -> None:
    """Megatron's process groups for the provider's layout, in place of those of an earlier model with another one."""
    from megatron.core import parallel_state, tensor_parallel

    sizes = (provider.tensor_model_parallel_size, provider.pipeline_model_parallel_size, provider.context_parallel_size)
    if parallel_state.is_initialized():
        current = (
            parallel_state.get_tensor_model_parallel_world_size(),
            parallel_state.get_pipeline_model_parallel_world_size(),
            parallel_state.get_context_parallel_world_size(),
        )
        if current == sizes:
            tensor_parallel.model_parallel_cuda_manual_seed(seed)
            return
        parallel_state.destroy_model_parallel()
    provider.initialize_model_parallel(seed=seed)


def ensure_process_group() -> bool:
    """Initialize torch.distributed from RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, or as a single process.

    Returns whether it was initialized here (and is the caller's to leave).
    """
    import torch

    if torch.distributed.is_initialized():
        return False
    if "RANK" not in os.environ:
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group(_backend(), store=store, rank=0, world_size=1)
        return True
    if has_gpu():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group(_backend())
    return True


def join_process_group(rank: int, size: int, rendezvous: Path) -> None:
    """Join the ranks of this machine through a file: no port that something else might take.

    Raises InputError where there are fewer GPUs than ranks.
    """
    import torch

    if has_gpu():
        gpus = torch.cuda.device_count()
        if gpus < size:
            raise InputError(
                f"{size} ranks and {gpus} GPU(s): lower parallel.processes, .tensor, .pipeline or .context, "
                "or set CUDA_VISIBLE_DEVICES= to train on the CPU"
            )
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        _backend(), store=torch.distributed.FileStore(str(rendezvous), size), rank=rank, world_size=size
    )


def _backend() -> str:
    return "nccl" if has_gpu() else "gloo"

"""Megatron models for conversion: without weights, with a checkpoint's weights, as upstream describes them."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from megatron.bridge.models.conversion.auto_bridge import AutoBridge
from megatron.bridge.training.checkpointing import _load_model_weights_from_checkpoint
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.enums import AttnBackend
from transformers import AutoConfig

import prism_nemo.models.bridges  # noqa: F401 - registers what Megatron-Bridge lacks
from prism_nemo.engine.positions import left_out
from prism_nemo.engine.setup import build_model, build_provider, ensure_process_group, set_up_parallel_groups
from prism_nemo.errors import InputError
from prism_nemo.models.facts import read_config, shape

ONE_KIND = {"attention_backend": AttnBackend.auto}
"""GPTModel and HybridModel default to different ones, which mcore refuses in one process (language_module.py:118)."""


def meta_model(hf: Path, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """(the whole model on the meta device, AutoBridge). Sets up a process group of one when there is none.

    Raises InputError for a configuration that transformers, Megatron-Bridge or Megatron-Core refuses.
    """
    dtype = dtype or stored_dtype(hf)
    try:
        bridge, provider = build_provider(hf, dtype=dtype, overrides=ONE_KIND)
        ensure_process_group()
        set_up_parallel_groups(provider, 0)
        provider._pg_collection = ProcessGroupCollection.use_mpu_process_groups()
        provider.init_model_with_meta_device = True
        with torch.device("meta"):
            model = provider.provide(pre_process=True, post_process=True)
    except (ValueError, AssertionError, TypeError, AttributeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{hf / 'config.json'}: no Megatron model of it: {reason}") from error
    return model, bridge


def stored_dtype(hf: Path) -> torch.dtype:
    """The dtype that `config.json` states; fp32 when it states none. Raises InputError when it is none of weights."""
    config = read_config(hf)
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, str(name).removeprefix("torch."), None)
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise InputError(f"{hf / 'config.json'}: torch_dtype is {name!r}; use float32, bfloat16 or float16")
    return dtype


def loaded_model(hf: Path, folder: Path, *, tensor: int = 1, pipeline: int = 1, dtype: torch.dtype) -> Any:
    """This rank's stages of the model of `hf/config.json`, with the weights of an `iter_*` folder, read by Megatron."""
    # Fused, Transformer Engine adds weight gradients to buffers that only the training loop's wrapper gives.
    overrides = ONE_KIND | padding(hf, tensor) | {"gradient_accumulation_fusion": False}
    stages, _ = build_model(hf, tensor=tensor, pipeline=pipeline, dtype=dtype, load_weights=False, overrides=overrides)
    _load_model_weights_from_checkpoint(str(folder), stages)
    return stages


def padding(hf: Path, tensor: int) -> dict[str, Any]:
    """Provider fields for a vocabulary that `tensor` ranks do not divide."""
    return {"should_pad_vocab": bool(shape(read_config(hf)).vocab % tensor)}


def upstream_provider(hf: Path, dtype: torch.dtype) -> Any:
    """As Megatron-Bridge makes it, for `run_config.yaml`; rotary scaling that it cannot say is left out."""
    config, _ = left_out(AutoConfig.from_pretrained(str(hf)))
    provider = AutoBridge.from_hf_config(config).to_megatron_provider(load_weights=False)
    settings = {"params_dtype": dtype, "pipeline_dtype": dtype, "bf16": dtype == torch.bfloat16, "hf_model_id": None}
    known = {field.name for field in dataclasses.fields(provider)}
    for name, value in settings.items():
        if name in known:
            setattr(provider, name, value)
    return provider

"""Megatron models and checkpoints as conversion needs them: a model without weights, a streamed save, a plain load."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.bridge.training.config import CheckpointConfig, ConfigContainer, LoggerConfig, OptimizerConfig
from megatron.bridge.training.state import GlobalState
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    TorchDistSaveShardedStrategy,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.enums import AttnBackend
from torch.distributed.checkpoint import FileSystemWriter, WriteItem
from torch.distributed.checkpoint import save as save_distributed
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.planner import WriteItemType

from prism_nemo.engine.setup import build_model, build_provider, ensure_process_group, set_up_parallel_groups
from prism_nemo.models.facts import read_config, shape

ONE_KIND = {"attention_backend": AttnBackend.auto}
"""GPTModel and HybridModel default to different ones, which mcore refuses in one process (language_module.py:118)."""


def meta_model(hf: Path, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """(the whole model on the meta device, AutoBridge). Sets up a process group of one when there is none."""
    bridge, provider = build_provider(hf, dtype=dtype or stored_dtype(hf), overrides=ONE_KIND)
    ensure_process_group()
    set_up_parallel_groups(provider, 0)
    provider._pg_collection = ProcessGroupCollection.use_mpu_process_groups()
    provider.init_model_with_meta_device = True
    with torch.device("meta"):
        model = provider.provide(pre_process=True, post_process=True)
    return model, bridge


def stored_dtype(hf: Path) -> torch.dtype:
    """The dtype that `config.json` states; fp32 when it states none."""
    config = read_config(hf)
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return getattr(torch, str(name).removeprefix("torch."))


def loaded_model(hf: Path, folder: Path, *, tensor: int = 1, pipeline: int = 1, dtype: torch.dtype) -> Any:
    """This rank's stages of the model of `hf/config.json`, with the weights of an `iter_*` folder, read by Megatron."""
    from megatron.bridge.training.checkpointing import _load_model_weights_from_checkpoint

    # Fused, Transformer Engine adds weight gradients to buffers that only the training loop's wrapper gives.
    overrides = ONE_KIND | padding(hf, tensor) | {"gradient_accumulation_fusion": False}
    stages, _ = build_model(hf, tensor=tensor, pipeline=pipeline, dtype=dtype, load_weights=False, overrides=overrides)
    _load_model_weights_from_checkpoint(str(folder), stages)
    return stages


def padding(hf: Path, tensor: int) -> dict[str, Any]:
    """Provider fields for a vocabulary that `tensor` ranks do not divide."""
    return {"should_pad_vocab": bool(shape(read_config(hf)).vocab % tensor)}


def save_streamed(layout: Any, provider: Any, out: Path, convert: Callable[[Any], torch.Tensor]) -> None:
    """Write `out/iter_0000000`, as Megatron-Bridge would, one parameter in memory at a time.

    `convert` gives the value of a `Parameter`. `provider` is what `run_config.yaml` shall say of the model:
    upstream's own, without the layers of this machine. Nothing but weights is in the checkpoint: no optimizer, no
    random state.
    """
    from megatron.bridge.training.checkpointing import save_checkpoint

    from prism_nemo.checkpoints.layout import sharding_metadata

    state = GlobalState()
    state.cfg = ConfigContainer(
        model=provider,
        train=None,
        optimizer=OptimizerConfig(use_distributed_optimizer=False),
        ddp=None,
        scheduler=None,
        dataset=None,
        logger=LoggerConfig(),
        tokenizer=None,
        checkpoint=CheckpointConfig(
            save=".", save_optim=False, save_rng=False, ckpt_format="torch_dist", async_save=False
        ),
        dist=None,
    )
    with contextlib.chdir(out):  # run_config.yaml repeats the path it was saved to
        save_checkpoint(
            state=state,
            model=[],
            optimizer=None,
            opt_param_scheduler=None,
            num_floating_point_operations_so_far=0,
            checkpointing_context={"save_strategy": _StreamedStrategy(layout, convert)},
            prebuilt_state_dict={
                "checkpoint_version": 3.0,
                "iteration": 0,
                "model": layout.model.sharded_state_dict(metadata=sharding_metadata()),
            },
            pg_collection=ProcessGroupCollection.use_mpu_process_groups(),
            callback_manager=None,
        )


class _StreamedStrategy(TorchDistSaveShardedStrategy):
    """Megatron's torch_dist format through torch's own writer, which takes a tensor when it writes it."""

    def __init__(self, layout: Any, convert: Callable[[Any], torch.Tensor]) -> None:
        super().__init__("torch_dist", 1)
        self._tensors = _Tensors(layout, convert)

    def save(self, sharded_state_dict: Any, checkpoint_dir: Any) -> None:
        flat, _, _ = _replace_state_dict_keys_with_sharded_keys(sharded_state_dict, self.keep_only_main_replica)
        with _without_checksums():
            save_distributed(
                mcore_to_pyt_state_dict(flat),
                storage_writer=_Writer(checkpoint_dir),
                planner=_Planner(self._tensors, flatten_state_dict=False),
            )


@contextlib.contextmanager
def _without_checksums() -> Iterator[None]:
    """torch's own, which cost more than the writing and which torch never checks; the manifest has the file's hash."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


class _Writer(FileSystemWriter):
    """One file; the metadata says nothing of this machine or run, so that equal weights give equal bytes."""

    def __init__(self, folder: Any) -> None:
        super().__init__(folder, single_file_per_rank=True, thread_count=1, sync_files=True)

    def storage_meta(self) -> StorageMeta:
        return StorageMeta(checkpoint_id="", save_id="")


class _Planner(MCoreSavePlanner):
    def __init__(self, tensors: "_Tensors", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tensors = tensors

    def resolve_data(self, write_item: WriteItem) -> Any:
        if write_item.type == WriteItemType.BYTE_IO:
            return super().resolve_data(write_item)
        return self._tensors.get(write_item.index.fqn, tuple(write_item.index.offset))


class _Tensors:
    """Region -> tensor, converting a parameter when its first region is asked for and dropping it with the last."""

    def __init__(self, layout: Any, convert: Callable[[Any], torch.Tensor]) -> None:
        self._convert = convert
        self._owner = {
            (key, offset): parameter for parameter in layout.parameters for (key, offset, _), _ in parameter.pieces()
        }
        self._ready: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}

    def get(self, key: str, offset: tuple[int, ...]) -> torch.Tensor:
        if (key, offset) not in self._ready:
            parameter = self._owner[(key, offset)]
            value = self._convert(parameter)
            self._ready |= {(k, o): tensor for (k, o, _), tensor in parameter.pieces(value)}
        return self._ready.pop((key, offset))


def upstream_provider(hf: Path, dtype: torch.dtype) -> Any:
    """As Megatron-Bridge makes it, for `run_config.yaml`; rotary scaling that it cannot say is left out."""
    import importlib

    from megatron.bridge.models.conversion.auto_bridge import AutoBridge
    from transformers import AutoConfig

    from prism_nemo.engine.positions import left_out

    importlib.import_module("prism_nemo.models.bridges")
    config, _ = left_out(AutoConfig.from_pretrained(str(hf)))
    provider = AutoBridge.from_hf_config(config).to_megatron_provider(load_weights=False)
    settings = {"params_dtype": dtype, "pipeline_dtype": dtype, "bf16": dtype == torch.bfloat16, "hf_model_id": None}
    known = {field.name for field in dataclasses.fields(provider)}
    for name, value in settings.items():
        if name in known:
            setattr(provider, name, value)
    return provider

"""Writing a Megatron checkpoint with one parameter in memory at a time."""

import contextlib
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
from torch.distributed.checkpoint import FileSystemWriter, WriteItem
from torch.distributed.checkpoint import save as save_distributed
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.planner import WriteItemType

from prism_nemo.checkpoints.layout import Layout, Parameter, sharding_metadata

Convert = Callable[[Parameter], torch.Tensor]
"""The value of a Megatron parameter."""


def save_streamed(layout: Layout, provider: Any, out: Path, convert: Convert) -> None:
    """Write `out/iter_0000000`, as Megatron-Bridge would, one parameter in memory at a time.

    `convert` gives the value of a `Parameter`. `provider` is what `run_config.yaml` shall say of the model:
    upstream's own, without the layers of this machine. Nothing but weights is in the checkpoint: no optimizer, no
    random state.
    """
    from megatron.bridge.training.checkpointing import save_checkpoint

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

    def __init__(self, layout: Layout, convert: Convert) -> None:
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

    def __init__(self, layout: Layout, convert: Convert) -> None:
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

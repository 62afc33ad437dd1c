"""How a model is named and cut on both sides, worked out on a model without weights (torch's meta device).

One `Parameter` is a Megatron parameter: the Hugging Face tensors it is made of, the regions of the checkpoint it is
stored in, and both conversions of its full value. Names and layouts come from Megatron-Bridge's mappings and from
Megatron-Core's own sharded state dict; nothing is repeated here.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensorFactory

from prism_nemo.checkpoints.hf_folder import canonical
from prism_nemo.checkpoints.megatron import meta_model
from prism_nemo.checkpoints.torch_dist import TorchDist
from prism_nemo.errors import InputError

HEAD = "output_layer.weight"
ROWS = 8192
"""Rows of the embedding that are compared at a time."""
Region = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Key, offset and shape in a global tensor of the checkpoint (layers may be stacked along the first axes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One Megatron parameter of the whole model (tensor and pipeline parallel 1)."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    task: Any
    """Megatron-Bridge's WeightConversionTask."""
    entry: Any
    """Its ShardedTensor or ShardedTensorFactory."""

    @property
    def sources(self) -> dict[str, str]:
        """Role -> canonical Hugging Face name; the role of a single one is empty."""
        names = self.task.mapping.hf_param
        return (
            {"": canonical(names)} if isinstance(names, str) else {key: canonical(name) for key, name in names.items()}
        )

    def from_hf(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """The Megatron value of Hugging Face tensors, keyed by role, in the parameter's dtype."""
        value: Any = tensors.get("", tensors)
        converted = self.task.mapping.hf_to_megatron(value, self.task.megatron_module)
        if converted.is_meta:  # Bridge's ReplicatedMapping moves to the module's device and, on one rank, does no more
            converted = tensors[""]
        return converted.to(self.dtype)

    def to_hf(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        """Canonical Hugging Face name -> tensor of a Megatron value (or of its gradient: the map is linear)."""
        converted = self.task.mapping.megatron_to_hf(value, self.task.megatron_module)
        return {canonical(name): tensor for name, tensor in converted.items()}

    def pieces(self, value: torch.Tensor | None = None) -> Iterator[tuple[Region, torch.Tensor]]:
        """The regions it is stored in, with the parts of `value` (of the parameter without data, when None)."""
        for piece in _built(self.entry, self.entry.data if value is None else value):
            shape = (1,) * piece.prepend_axis_num + tuple(piece.local_shape)
            yield (piece.key, tuple(piece.global_offset), shape), piece.data.reshape(shape)

    def load(self, read: Callable[[str, tuple[int, ...], tuple[int, ...]], torch.Tensor]) -> torch.Tensor:
        """Its full value, put together from the checkpoint's regions."""
        if not isinstance(self.entry, ShardedTensorFactory):
            region = next(self.pieces())[0]
            return read(*region).reshape(self.shape)
        built = self.entry.build()
        return self.entry.merge_fn(_filled(built, read)).reshape(self.shape)


def _built(entry: Any, data: torch.Tensor) -> list[Any]:
    entry = dataclasses.replace(entry, data=data)
    if not isinstance(entry, ShardedTensorFactory):
        return [entry]
    built = entry.build()
    return list(nested_values(built)) if isinstance(built, (dict, list)) else [built]


def _filled(built: Any, read: Callable[..., torch.Tensor]) -> Any:
    """The structure a factory built, with tensors from the checkpoint in the place of its pieces."""
    if isinstance(built, dict):
        return {key: _filled(value, read) for key, value in built.items()}
    if isinstance(built, list):
        return [_filled(value, read) for value in built]
    shape = (1,) * built.prepend_axis_num + tuple(built.local_shape)
    return read(built.key, tuple(built.global_offset), shape).reshape(tuple(built.local_shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """All parameters of a model, and what Megatron-Bridge made it from."""

    parameters: list[Parameter]
    bridge: Any
    """AutoBridge."""
    model: Any
    """The model on the meta device."""
    tied: bool
    """Whether output and embedding are one matrix, so that the files have no `lm_head.weight`."""

    @property
    def hf_names(self) -> list[str]:
        """Every Hugging Face tensor the model is made of, in the parameters' order, as often as it is mapped."""
        return [name for parameter in self.parameters for name in parameter.sources.values()]

    def check_names(self, present: set[str], where: str) -> None:
        """Proof (a): every Hugging Face tensor is used exactly once, none is left over on either side.

        Raises InputError that names the first few that are missing, unknown or used twice. A tied `lm_head.weight` may
        be present: it must then equal the embedding (the caller checks).
        """
        names = self.hf_names
        wanted = set(names)
        twice = sorted({name for name in wanted if names.count(name) > 1}) if len(wanted) != len(names) else []
        extra = present - wanted - ({"lm_head.weight"} if self.tied else set())
        faults = {"lacks": sorted(wanted - present), "holds unknown": sorted(extra), "is asked twice for": twice}
        for words, found in faults.items():
            if found:
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                raise InputError(
                    f"{where} {words} {', '.join(found[:3])}{more}; config.json and weights do not belong together"
                )


def checkpoint_layout(hf: Path, checkpoint: TorchDist) -> Layout:
    """The layout of a checkpoint: stacked layers or single ones, in the dtype it is stored in.

    Raises InputError when it is not a checkpoint of the model of `hf/config.json`, or has weights beside that model's.
    """
    stored = next(
        (value.properties.dtype for key, value in checkpoint.tensors.items() if "word_embeddings" in key), None
    )
    if stored is None:
        raise InputError(f"{checkpoint.folder} has no embedding; it is no language model's checkpoint")
    layout = model_layout(hf, dtype=stored)
    if _keys(layout) - set(checkpoint.tensors):
        single = model_layout(hf, dtype=stored, stacked=False)
        layout = layout if _keys(single) - set(checkpoint.tensors) else single
    missing, known = _keys(layout) - set(checkpoint.tensors), _keys(layout)
    extra = {key for key in set(checkpoint.tensors) - known if "optimizer" not in key}
    if layout.tied and _is_second_copy(checkpoint):
        extra.discard(HEAD)
    for words, found in (("lacks", sorted(missing)), ("holds unknown", sorted(extra))):
        if found:
            raise InputError(f"{checkpoint.folder} {words} {', '.join(found[:3])}; it is not a checkpoint of {hf}")
    return layout


def _is_second_copy(checkpoint: TorchDist) -> bool:
    """Whether the output layer, where there is one, holds the embedding's rows: pipeline ranks keep tied ones twice."""
    if HEAD not in checkpoint.tensors:
        return True
    embedding = next(key for key in checkpoint.tensors if key.endswith("word_embeddings.weight"))
    shape = tuple(checkpoint.tensors[embedding].size)
    pieces = [(start, min(ROWS, shape[0] - start)) for start in range(0, shape[0], ROWS)]
    return tuple(checkpoint.tensors[HEAD].size) == shape and all(
        torch.equal(*(checkpoint.read(key, (start, 0), (rows, shape[1])) for key in (embedding, HEAD)))
        for start, rows in pieces
    )


def _keys(layout: Layout) -> set[str]:
    return {region[0] for parameter in layout.parameters for region, _ in parameter.pieces()}


def sharding_metadata(stacked: bool = True) -> dict[str, Any]:
    """What Megatron-Bridge 0.6.2 asks of `sharded_state_dict` (training/checkpointing.py)."""
    metadata = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}
    return metadata if stacked else metadata | {"non_homogeneous_layers": True}


def model_layout(hf: Path, *, dtype: torch.dtype | None = None, stacked: bool = True) -> Layout:
    """Work out the layout of the model that `hf/config.json` describes. Needs no weights and a few megabytes.

    dtype: of the parameters, the configuration's when None. stacked: whether the checkpoint stacks equal layers into
    one tensor (Megatron's default for a GPTModel). Raises InputError for an architecture that Megatron-Bridge does
    not know.
    """
    model, bridge = meta_model(hf, dtype)
    sharded = model.sharded_state_dict(metadata=sharding_metadata(stacked))
    tasks = bridge._model_bridge.build_conversion_tasks(bridge.hf_pretrained, [model])
    missing = [index for index, task in enumerate(tasks) if task is None]
    if missing:
        raise InputError(f"Megatron-Bridge has no mapping for {len(missing)} parameters of {hf}")
    parameters = [
        Parameter(
            name=task.global_param_name,
            shape=tuple(task.param_weight.shape),
            dtype=task.param_weight.dtype,
            task=task,
            entry=sharded[task.global_param_name],
        )
        for task in tasks
    ]
    return Layout(parameters=parameters, bridge=bridge, model=model, tied=model.share_embeddings_and_output_weights)

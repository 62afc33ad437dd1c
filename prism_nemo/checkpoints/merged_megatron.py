"""Merges with Megatron checkpoints among the models: converted, merged as Hugging Face directories, converted back."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.artifacts.manifest import CARD
from prism_nemo.checkpoints.exporting import carried_reference, export_hf
from prism_nemo.checkpoints.importing import import_into
from prism_nemo.checkpoints.torch_dist import find_iteration, is_megatron

SCRATCH = "converted"
"""Folder of the draft that holds the models in Hugging Face's format until the merge is written."""


def merge_megatron(
    models: Sequence[Path], draft: Path, write: Callable[[Sequence[Path], Path], dict[str, Any]]
) -> dict[str, Any]:
    """Convert the Megatron checkpoints of `models`, `write` the merge of all into `draft`; returns its metrics.

    Where the first model is a Megatron checkpoint so is the result. A checkpoint that carries no Hugging Face
    configuration takes that of the first model that has one. Needs disk for the converted models. Conversions prove
    names and bits. Raises InputError for a checkpoint that cannot be converted.
    """
    scratch = draft / SCRATCH
    configurations = [_configuration(Path(path)) for path in models]
    first = next((found for found in configurations if found), None)
    hf = [
        export_hf(path, scratch / str(number), reference=own or first, proof="keys")
        if is_megatron(Path(path))
        else path
        for number, (path, own) in enumerate(zip(models, configurations, strict=True))
    ]
    if not is_megatron(Path(models[0])):
        metrics = write(hf, draft)
    else:
        merged = scratch / "merged"
        merged.mkdir()
        metrics = write(hf, merged)
        metrics |= import_into(merged, draft)
        os.rename(merged / CARD, draft / CARD)
    shutil.rmtree(scratch)
    return metrics


def _configuration(model: Path) -> Path | None:
    """The Hugging Face directory that says what a model is; None for a Megatron checkpoint that carries none."""
    if not is_megatron(model):
        return model
    return carried_reference(model, find_iteration(model))

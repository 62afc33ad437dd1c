"""Long context given back (paper, section 8.1): merge with the base, then training at the long length."""

import dataclasses
from pathlib import Path
from typing import Any

from prism_nemo.recipe import LongContext, Recipe
from prism_nemo.stages import training
from prism_nemo.stages.stage import Progress, Stage

ATTENTION = "long_context_attention"
"""The paper's variant that trains attention only."""


def stages(recipe: Recipe, run: Path) -> list[Stage]:
    """Merge, training and export; without `recipe.long_context` the merge alone, without either nothing."""
    if recipe.long_context is None:
        return [merge_stage(recipe, run)] if recipe.merge else []
    full = recipe.long_context
    made = [
        merge_stage(recipe, run),
        training.import_stage("merge_megatron", hf=run / "merge"),
        *_trained("long_context", "training at the long length", recipe, full, run),
    ]
    if full.compare_attention:
        attention = dataclasses.replace(full, trainable=("attention",))
        made += _trained(ATTENTION, "the same on attention only", recipe, attention, run)
    return made


def points(recipe: Recipe, run: Path) -> dict[str, Path]:
    """The rows of the paper's Table 7 that this recipe makes, in its order."""
    found = {"base": run / "base", "mt": run / "mt"}
    if recipe.merge or recipe.long_context:
        found["merge"] = run / "merge"
    if recipe.long_context and recipe.long_context.compare_attention:
        found[ATTENTION] = run / f"{ATTENTION}_hf"
    if recipe.long_context:
        found["long_context"] = run / "long_context_hf"
    return found


def merge_stage(recipe: Recipe, run: Path) -> Stage:
    """Base and mid-trained model as one, with the positions that the long length needs."""
    weight = recipe.merge.weight if recipe.merge else 1.0
    inputs = {"base": run / "base", "mt": run / "mt"}
    rope = _rope(recipe.long_context) if recipe.long_context else None

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.checkpoints.merge import Weights
        from prism_nemo.checkpoints.merged import merge
        from prism_nemo.models.facts import read_config
        from prism_nemo.models.rope import rope_changes

        changes = rope_changes(read_config(inputs["base"]), **rope) if rope else {}
        merge(list(inputs.values()), out, Weights(models=(weight,), components={}), config_changes=changes)

    parameters = {"weight": weight, "rope": rope}
    does = "base and mid-trained, averaged"
    return Stage(name="merge", does=does, inputs=inputs, parameters=parameters, run=work, gpu=False)


def _rope(settings: LongContext) -> dict[str, Any]:
    return {
        "length": settings.seq_length,
        "base": settings.rope_base,
        "scaling": settings.rope_scaling,
        "factor": settings.rope_factor,
    }


def _trained(name: str, does: str, recipe: Recipe, settings: LongContext, run: Path) -> list[Stage]:
    return [
        training.train_stage(
            name,
            does,
            recipe,
            settings,
            model=run / "merge",
            start=run / "merge_megatron",
            blend=run / "long_context_packed",
        ),
        training.export_stage(f"{name}_hf", megatron=run / name, like=run / "merge"),
    ]

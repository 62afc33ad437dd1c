"""The chain of a recipe: its stages in order, each from the artifacts of earlier ones."""

from pathlib import Path

from prism_nemo.recipe import Recipe
from prism_nemo.stages import data, lengths, long_context, rehearsal, reinforcement, results, training
from prism_nemo.stages.stage import Stage


def chain(recipe: Recipe, run: Path) -> list[Stage]:
    """The stages of `recipe` with their artifacts in `run`.

    Raises InputError for a mixture that is broken or names data that is not there.
    """
    run = run.resolve()
    base = run / "base"
    blends = data.mixture_stages(recipe, run)
    begin = rehearsal.stages(recipe, run, blends) if recipe.pretrain else [rehearsal.download_stage(recipe), *blends]
    stages = [
        *begin,
        training.import_stage("base_megatron", hf=base),
        training.train_stage(
            "midtrain",
            "mid-training",
            recipe,
            recipe.midtrain,
            model=base,
            start=run / "base_megatron",
            blend=run / "blend",
        ),
        training.export_stage("mt", megatron=run / "midtrain", like=base),
        *reinforcement.stages(recipe, run),
        *long_context.stages(recipe, run),
        *lengths.stages(recipe, run),
    ]
    return [*stages, *results.stages(recipe, run, stages)]

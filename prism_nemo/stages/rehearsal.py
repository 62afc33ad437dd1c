"""Where the base comes from: in a rehearsal it is trained here, otherwise it is downloaded."""

from pathlib import Path

from prism_nemo.recipe import Recipe
from prism_nemo.stages import data, training
from prism_nemo.stages.stage import Progress, Stage


def stages(recipe: Recipe, run: Path, blends: list[Stage]) -> list[Stage]:
    """Corpus, tokenizer, data, a random pico model, and its training on general text and code: the base.

    `blends`, the data of the later trainings, come before the first training, so that bad data is found in seconds.
    """
    corpus, tokenizer, random = run / "corpus", run / "tokenizer", run / "random"
    if recipe.pretrain is None:
        return []
    return [
        data.corpus_stage(recipe),
        data.tokenizer_stage(recipe, corpus),
        data.blend_stage(
            "base_blend",
            "general text and code",
            recipe,
            recipe.pretrain,
            mixture=lambda: data.base_mixture_of(recipe, corpus),
            inputs={"tokenizer": tokenizer, "corpus": corpus},
        ),
        *blends,
        random_stage(recipe, tokenizer),
        training.import_stage("random_megatron", hf=random),
        training.train_stage(
            "pretrain",
            "training the tiny base",
            recipe,
            recipe.pretrain,
            model=random,
            start=run / "random_megatron",
            blend=run / "base_blend",
        ),
        training.export_stage("base", megatron=run / "pretrain", like=random),
    ]


def random_stage(recipe: Recipe, tokenizer: Path) -> Stage:
    """A pico model of the recipe's family with random weights."""
    parameters = {"family": recipe.model.family, "sizes": recipe.model.pico, "seed": recipe.seed}

    def run(out: Path, progress: Progress) -> None:
        from prism_nemo.artifacts import Request, publish
        from prism_nemo.models.pico import make_pico

        request = Request(kind="hf_checkpoint", parameters=parameters, inputs={"tokenizer": tokenizer})
        with publish(out, request) as draft:
            make_pico(
                recipe.model.family,
                draft.path,
                vocab_size=recipe.data.vocab_size,
                seed=recipe.seed,
                tokenizer_dir=tokenizer,
                **(recipe.model.pico or {}),
            )

    inputs = {"tokenizer": tokenizer}
    return Stage(name="random", does="random weights", inputs=inputs, parameters=parameters, run=run, gpu=False)


def download_stage(recipe: Recipe) -> Stage:
    """The base model's files, from a local directory or the Hugging Face hub (by way of its cache, which resumes)."""

    def run(out: Path, progress: Progress) -> None:
        import shutil

        from prism_nemo.artifacts import Request, publish
        from prism_nemo.checkpoints.hf_folder import open_hf
        from prism_nemo.checkpoints.hub import model_folder

        folder = model_folder(recipe.model.base)
        open_hf(folder)  # whole: the hub's client also hands out what it has of a model when it has no network
        with publish(out, Request(kind="hf_checkpoint", parameters={"base": recipe.model.base})) as draft:
            shutil.copytree(folder, draft.path, dirs_exist_ok=True)

    source = recipe.model.base
    return Stage(name="base", does=f"the weights of {source}", parameters={"base": source}, run=run, gpu=False)

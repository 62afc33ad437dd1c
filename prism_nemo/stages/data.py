"""Data stages: the blend that mid-training reads, and in a rehearsal the corpus, the tokenizer and the base's blend."""

import dataclasses
import glob
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import Request, publish
from prism_nemo.data.benchmarks import Benchmarks, load_benchmarks
from prism_nemo.data.files import source_files
from prism_nemo.data.mixture import Mixture, Part, load_mixture, with_local_data
from prism_nemo.data.rehearsal.corpus import SOURCES, write_corpus
from prism_nemo.data.rehearsal.mixture import base_mixture, rehearsal_mixture
from prism_nemo.errors import InputError
from prism_nemo.recipe import Data, LongContext, Recipe, Training
from prism_nemo.recipe.mixtures import mixtures, own_files
from prism_nemo.stages.stage import Progress, Stage

TOKENIZER_CHARACTERS = 400_000
"""Per source, that a rehearsal's tokenizer is trained on."""


def corpus_stage(recipe: Recipe) -> Stage:
    def run(out: Path, progress: Progress) -> None:
        write_corpus(out, seed=recipe.data.seed)

    return Stage(
        name="corpus",
        does="text of this machine and generated problems",
        parameters={"seed": recipe.data.seed},
        run=run,
        gpu=False,
    )


def tokenizer_stage(recipe: Recipe, corpus: Path) -> Stage:
    def run(out: Path, progress: Progress) -> None:
        from prism_nemo.data.tokenizer import train_tokenizer

        texts = [text for source in SOURCES for text in _texts(corpus / "documents" / f"{source}.jsonl")]
        train_tokenizer(texts, recipe.data.vocab_size, out)

    parameters = {"vocab_size": recipe.data.vocab_size, "characters": TOKENIZER_CHARACTERS}
    return Stage(
        name="tokenizer", does="byte-level BPE", inputs={"corpus": corpus}, parameters=parameters, run=run, gpu=False
    )


def _texts(path: Path) -> Iterator[str]:
    length = 0
    with open(path, encoding="utf-8") as file:
        for line in file:
            text = json.loads(line)["text"]
            length += len(text)
            if length > TOKENIZER_CHARACTERS:
                return
            yield text


def mixture_of(recipe: Recipe, corpus: Path) -> Mixture:
    """The mixture of mid-training, in a rehearsal with the same shares per domain. Raises InputError."""
    if not recipe.data.rehearsal:
        return mixtures(recipe)["midtrain"]
    return rehearsal_mixture(load_mixture(recipe.data.mixture), corpus, recipe.data.sources)


def mixture_stages(recipe: Recipe, run: Path) -> list[Stage]:
    """The data of mid-training and of long-context training."""
    midtrain = blend_stage(
        "blend",
        f"the {recipe.data.mixture} mixture",
        recipe,
        recipe.midtrain,
        mixture=lambda: mixture_of(recipe, run / "corpus"),
        inputs=_inputs(recipe, run),
    )
    return [midtrain, *(_long_context_stages(recipe, recipe.long_context, run) if recipe.long_context else ())]


def long_context_mixture_of(recipe: Recipe, settings: LongContext, corpus: Path) -> Mixture:
    """The mixture of long-context training. A rehearsal's problems are all short, so there short documents are kept."""
    if not recipe.data.rehearsal:
        return mixtures(recipe)["long_context"]
    rehearsed = rehearsal_mixture(load_mixture(settings.mixture), corpus, {})
    return with_local_data(rehearsed, own_files(recipe, rehearsed))


def _long_context_stages(recipe: Recipe, settings: LongContext, run: Path) -> list[Stage]:
    """The data of long-context training, and the same packed into whole sequences."""
    blend = blend_stage(
        "long_context_blend",
        f"the {settings.mixture} mixture",
        recipe,
        settings,
        mixture=lambda: long_context_mixture_of(recipe, settings, run / "corpus"),
        inputs=_inputs(recipe, run),
    )
    return [blend, _packed_stage(settings, run / "long_context_blend")]


def _packed_stage(settings: LongContext, blend: Path) -> Stage:
    parameters = {"seq_length": settings.seq_length, "overlap": settings.overlap}

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.data.packed import pack_blend

        pack_blend(blend, out, seq_length=settings.seq_length, overlap=settings.overlap)

    does = "long documents in whole sequences"
    return Stage(
        name="long_context_packed", does=does, inputs={"blend": blend}, parameters=parameters, run=work, gpu=False
    )


def _inputs(recipe: Recipe, run: Path) -> dict[str, Path]:
    """The tokenizer, and in a rehearsal the corpus."""
    tokenizer = run / "tokenizer" if recipe.data.vocab_size else Path(recipe.data.tokenizer or run / "base")
    return {"tokenizer": tokenizer} | ({"corpus": run / "corpus"} if recipe.data.rehearsal else {})


def texts_stage(recipe: Recipe, run: Path) -> Stage:
    """Held-out documents of the mixture as text, evenly over its sources: what activations are compared on."""
    count = recipe.analyze.cka_inputs
    inputs = {"blend": run / "blend", "tokenizer": _inputs(recipe, run)["tokenizer"]}

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.data.held_out import held_out_texts

        with publish(out, Request(kind="texts", parameters={"count": count}, inputs=inputs)) as draft:
            rows = [json.dumps({"text": text}) for text in held_out_texts(inputs["blend"], inputs["tokenizer"], count)]
            (draft.path / "texts.jsonl").write_text("\n".join(rows) + "\n")

    does = "held-out documents to compare activations on"
    return Stage(name="texts", does=does, inputs=inputs, parameters={"count": count}, run=work, gpu=False)


def base_mixture_of(recipe: Recipe, corpus: Path) -> Mixture:
    return base_mixture(corpus, recipe.data.sources)


def blend_stage(
    name: str, does: str, recipe: Recipe, training: Training, *, mixture: Callable[[], Mixture], inputs: dict[str, Path]
) -> Stage:
    """Documents of a mixture to token files and a blend for the tokens of `training`.

    `inputs`: the tokenizer, and whatever else the mixture's files come from.
    """
    resolved = _screened(mixture(), recipe.data)
    benchmarks = {name: Path(path).resolve() for name, path in recipe.data.benchmarks.items()}
    screen = load_benchmarks(resolved.decontamination, benchmarks) if resolved.decontamination else None
    outside = _outside(resolved, screen, list(inputs.values()))
    for source, path in outside.items():
        _check_file(source, path)
    parameters = {
        "mixture": _described(resolved),
        "screen": screen and dataclasses.asdict(screen) | {"benchmarks": [part.name for part in screen.benchmarks]},
        "tokens": training.tokens,
        "seq_length": training.seq_length,
        "validation_tokens": recipe.data.validation_tokens,
        "max_bad_fraction": recipe.data.max_bad_fraction,
        "seed": recipe.data.seed,
    }

    def make(out: Path, shard: tuple[int, int] | None = None) -> None:
        from prism_nemo.data.prepare import prepare

        prepare(
            _screened(mixture(), recipe.data),
            inputs["tokenizer"],
            training.tokens,
            out,
            workers=recipe.data.workers,
            seed=recipe.data.seed,
            seq_length=training.seq_length,
            max_bad_fraction=recipe.data.max_bad_fraction,
            valid_tokens=recipe.data.validation_tokens,
            benchmarks=benchmarks,
            shard=shard,
        )

    def run(out: Path, progress: Progress) -> None:
        make(out)

    inputs = {**inputs, **outside}
    return Stage(name=name, does=does, inputs=inputs, parameters=parameters, run=run, share=make, gpu=False)


def _screened(mixture: Mixture, data: Data) -> Mixture:
    """Without its benchmark list when the recipe says so. Raises InputError for a benchmark the list does not have."""
    screened = mixture if data.decontaminate else dataclasses.replace(mixture, decontamination=None)
    if data.benchmarks and screened.decontamination is None:
        raise InputError(f"data.benchmarks: documents of {mixture.name} are not checked against any benchmark")
    return screened


def _outside(mixture: Mixture, screen: Benchmarks | None, made: list[Path]) -> dict[str, Path]:
    """Role -> files and folders of this machine that are read, besides what the run itself made."""
    parts = [(f"source {source.name}", part) for source in mixture.sources for part in source.parts]
    found: dict[str, Path] = {}
    for role, part in parts:
        found |= _read_from(f"{role}.{part.name}" if part.name else role, part)
    for part in screen.benchmarks if screen else ():
        found |= _read_from(f"benchmark {part.name}", part)
    return {role: path for role, path in found.items() if not any(path.is_relative_to(folder) for folder in made)}


def _read_from(role: str, part: Part) -> dict[str, Path]:
    if part.path is None:
        return {}
    if glob.has_magic(part.path):
        folder, names = source_files(role, part)
        return {f"{role} {name}": folder / name for name in names}
    path = Path(part.path).resolve()
    return {role: path.parent if part.join and path.is_file() else path}  # the table of a join lies beside


def _check_file(source: str, path: Path) -> None:
    """What can be known of a user's file without reading it."""
    if not path.exists():
        raise InputError(f"{source}: {path} does not exist")
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    if not any(file.stat().st_size for file in files):
        raise InputError(f"{source}: {path} is empty")
    if not all(os.access(file, os.R_OK) for file in files):
        raise InputError(f"{source}: {path} cannot be read; check its permissions")


def _described(mixture: Mixture) -> dict[str, Any]:
    """Shares and rules; what is read is an input, what documents are checked against stands by itself."""
    described = dataclasses.asdict(mixture)
    del described["decontamination"]
    for source in described["sources"]:
        for part in source["parts"]:
            del part["path"]
    return described

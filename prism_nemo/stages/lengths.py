"""What each point of the long-context restoration makes of a long context (paper, Table 7)."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import Request, publish
from prism_nemo.recipe import Recipe
from prism_nemo.stages.long_context import points
from prism_nemo.stages.stage import Progress, Stage

NAME = "analysis_long_context"
QUESTIONS = 20
"""Needles of each length in a rehearsal."""


def stages(recipe: Recipe, run: Path) -> list[Stage]:
    """One stage where the recipe has a long-context training."""
    if recipe.long_context is None:
        return []
    return [_rehearsal_stage(recipe, run) if recipe.data.rehearsal else _ruler_stage(recipe, run)]


def _rehearsal_stage(recipe: Recipe, run: Path) -> Stage:
    """Needles, and the loss by position, up to the long length."""
    assert recipe.long_context is not None
    arms = points(recipe, run)
    long, general = (run / "corpus" / "held_out" / f"{name}.jsonl" for name in ("long", "general"))
    longest, trained = recipe.long_context.seq_length, recipe.midtrain.seq_length
    parameters = {"analysis": "long_context", "trained": trained, "longest": longest, "questions": QUESTIONS}
    inputs = arms | {"documents": long, "haystack": general}

    def work(out: Path, progress: Progress) -> None:
        with publish(out, Request(kind="analysis", parameters=parameters, inputs=inputs)) as draft:
            found = _measure(arms, long, general, trained, longest, run / "generations", progress)
            report = parameters | {"labels": list(arms), "points": found}
            (draft.path / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")

    does = "loss and needles by length"
    return Stage(name=NAME, does=does, inputs=inputs, parameters=parameters, run=work)


def _ruler_stage(recipe: Recipe, run: Path) -> Stage:
    """RULER's 13 tasks from 8k to 128k, as many samples of each as the paper's."""
    from prism_nemo.evaluation.leaderboards import RULER_LENGTHS, RULER_SAMPLES

    arms = points(recipe, run)
    lengths = [length for length in RULER_LENGTHS if recipe.long_context and length <= recipe.long_context.seq_length]
    parameters = {"analysis": "long_context", "trained": recipe.midtrain.seq_length, "lengths": lengths}
    parameters |= {"samples": RULER_SAMPLES}

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.stages.scores import part_of

        with publish(out, Request(kind="analysis", parameters=parameters, inputs=arms)) as draft:
            found = {}
            for number, (name, model) in enumerate(arms.items()):
                told = part_of(progress, number, name, len(arms), len(lengths))
                found[name] = rulers(model, lengths, run / "retention", recipe.evaluate.backend, told)
            report = parameters | {"labels": list(arms), "points": found}
            (draft.path / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")

    return Stage(name=NAME, does="RULER by length", inputs=arms, parameters=parameters, run=work)


def rulers(model: Path, lengths: Sequence[int], store: Path, backend: str, progress: Any) -> dict[str, Any]:
    """RULER at the lengths that a model's positions reach, and which ones they do not: `skipped`."""
    from prism_nemo.evaluation.backends.rendering import positions
    from prism_nemo.evaluation.leaderboards import RULER_SAMPLES, ruler
    from prism_nemo.evaluation.retention import run_retention

    room = positions(model)
    reached = [length for length in lengths if room is None or length <= room]
    tasks = [ruler(length) for length in reached]
    scores = run_retention(model, tasks, store, backend=backend, limit=RULER_SAMPLES, progress=progress)
    return {
        "ruler": [dataclasses.asdict(score.estimate()) for score in scores],
        "skipped": [length for length in lengths if length not in reached],
        "positions": room,
    }


def _measure(
    arms: Mapping[str, Path],
    documents: Path,
    haystack: Path,
    trained: int,
    longest: int,
    store: Path,
    progress: Progress,
) -> dict[str, Any]:
    from prism_nemo.evaluation import GenerationStore, needle_questions
    from prism_nemo.evaluation.long_context import long_context

    texts = [json.loads(line)["text"] for line in haystack.read_text(encoding="utf-8").splitlines()]
    lengths = [size for size in (trained // 2, trained, 2 * trained, 4 * trained) if size <= longest]
    questions = needle_questions(arms["base"], lengths, per_length=QUESTIONS, texts=texts)
    edges = [0, *(size for size in lengths if size >= trained)]
    found = {}
    with GenerationStore(store) as opened:
        for number, (name, model) in enumerate(arms.items()):
            progress(number, len(arms), name)
            curve = long_context(model, questions, opened, documents=documents, edges=edges)
            # Each document's losses too: differences between points are taken document by document.
            found[name] = curve.as_record() | {"documents": [stretch.document_nats for stretch in curve.positions]}
    return found

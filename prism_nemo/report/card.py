"""A model card for a trained checkpoint of a run: the README.md of its Hugging Face directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from prism_nemo.errors import InputError
from prism_nemo.report import words
from prism_nemo.report.blocks import Table
from prism_nemo.report.long_context import by_length
from prism_nemo.report.outcome import four_arms, leaderboards, protocol_line
from prism_nemo.report.page import environment
from prism_nemo.report.run import Run, label

CARDS = ("mt", "rl", "rl_base", "merge", "long_context_hf", "long_context_attention_hf")
"""Stages whose artifact is a Hugging Face directory that a run trained."""


def model_card(run: Run, stage: str) -> str:
    """The card as Markdown with the hub's YAML head: data, recipe, scores, lineage, limits.

    Raises InputError when `stage` has not finished. Numbers are those of the run; what it did not measure is said.
    """
    if stage not in run.manifests:
        raise InputError(f"{run.path / stage} is not finished: no card can be written for it")
    template = environment(escape=False).get_template("card.md.jinja")
    return template.render(
        head=yaml.safe_dump(_head(run, stage), sort_keys=False),
        run=run,
        stage=stage,
        label=label(stage),
        sources=_sources(run),
        scores=four_arms(run) if run.arms else None,
        protocol=protocol_line(run),
        general=bool((run.scores or {}).get("retention")),
        leaderboard=leaderboards(run).get(stage),
        lengths=_lengths(run, stage),
        lineage=_lineage(run, stage),
        limits=_limits(run, stage),
        steps=_steps(run, stage),
    )


def _head(run: Run, stage: str) -> dict[str, Any]:
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if not run.rehearsal:
        head["base_model"] = run.recipe["model"]["base"]
    kind = (
        "grpo" if stage.startswith("rl") else "merge" if stage == "merge" else "long-context" if "long" in stage else ""
    )
    return head | {"tags": [*(["mid-training"] if stage != "rl_base" else []), *([kind] if kind else [])]}


def _sources(run: Run) -> Table | None:
    if "blend" not in run.blends:
        return None
    report = run.blends["blend"]
    rows = [
        [
            source["name"].replace("_", " "),
            source["domain"],
            source["licence"] or "not stated",
            words.percent(source["share_drawn"]),
            words.count(source["tokens_drawn"]),
            f"{source['epochs']:.2f}",
        ]
        for source in report["sources"]
    ]
    columns = ["source", "domain", "licence", "share, %", "tokens", "epochs"]
    return Table(title="Mid-training data", columns=columns, rows=rows, text_columns=3)


def _steps(run: Run, stage: str) -> list[str]:
    """What was done to the base, in order."""
    training, rl = run.recipe["midtrain"], run.recipe["rl"]
    mid = f"mid-training on {words.count(training['tokens'])} tokens of {run.recipe['data']['mixture']}, sequences of "
    mid += f"{training['seq_length']:,}, peak learning rate {training['learning_rate']:g}"
    grpo = f"GRPO with verifiable rewards, {rl['steps']} steps of {rl['prompts_per_step']} prompts x "
    grpo += f"{rl['samples_per_prompt']} rollouts on {', '.join(rl['domains'])}, learning rate {rl['learning_rate']:g}"
    known = {"mt": [mid], "rl": [mid, grpo], "rl_base": [grpo]}
    return known[stage] if stage in known else [mid, *_restoration(run, stage)]


def _restoration(run: Run, stage: str) -> list[str]:
    """The merge, and the training on long documents after it."""
    weight, training = run.recipe["merge"]["weight"], run.recipe["long_context"]
    merge = f"linear merge: {weight:g} of it and {1 - weight:g} of the base"
    if stage == "merge":
        return [merge]
    trained = ["attention"] if "attention" in stage else list(training["trainable"])
    what = "all parameters" if trained in ([], ["all"]) else f"{', '.join(trained)} only"
    long = f"training on {words.count(training['tokens'])} tokens of {training['mixture']}, sequences of "
    return [merge, f"{long}{training['seq_length']:,}, peak learning rate {training['learning_rate']:g}, {what}"]


def _lengths(run: Run, stage: str) -> Table | None:
    """Long context by length, where this checkpoint or the one it came from is among the points."""
    points = (run.analyses.get("long_context") or {}).get("points", {})
    return by_length(run) if stage.removesuffix("_hf") in points else None


def _lineage(run: Run, stage: str) -> Sequence[tuple[str, str, str]]:
    """(input, where it was, fingerprint), and first the checkpoint itself."""
    manifest = run.manifests[stage]
    inputs = [(entry.name, Path(entry.path).name, entry.fingerprint) for entry in manifest.inputs]
    return [("this checkpoint", stage, run.fingerprints[stage]), *inputs]


def _limits(run: Run, stage: str) -> list[str]:
    limits = []
    if run.rehearsal:
        limits.append("A rehearsal at pico size: it shows that the recipe runs, and is of no other use.")
    if stage not in run.arms:
        limits.append("No benchmark was run on this checkpoint.")
    if not (run.scores or {}).get("retention") and stage not in leaderboards(run):
        limits.append("What it forgot of the base was not measured.")
    limits.append(
        "Not aligned for safety; rewards were given for right answers only."
        if stage.startswith("rl")
        else "A base model: it continues text and follows no instructions."
    )
    return limits

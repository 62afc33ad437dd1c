"""Scoring of the four arms, the analyses of the three points, and the report."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import Request, publish
from prism_nemo.recipe import Recipe
from prism_nemo.stages import data
from prism_nemo.stages.stage import Progress, Stage

ARMS = ("base", "rl_base", "mt", "rl")
"""Base, base + RL, mid-trained, mid-trained + RL: also the stages that make them."""
RETENTION = "lb_v1,lb_v2"
COMPARED = (("base", "rl_base"), ("base", "mt"), ("mt", "rl"), ("rl_base", "rl"), ("rl_base", "mt"))


def stages(recipe: Recipe, run: Path, earlier: list[Stage]) -> list[Stage]:
    """Evaluation, analyses, and the report on these and all `earlier` stages."""
    arms = {arm: run / arm for arm in ARMS}
    points = {"base": run / "base", "mt": run / "mt", "rl": run / "rl"}
    made = [
        evaluate_stage(recipe, run, arms),
        *([] if recipe.data.rehearsal else [retention_stage(recipe, run, points)]),
        weights_stage(recipe, points),
        *([] if recipe.data.rehearsal else [data.texts_stage(recipe, run)]),
        representations_stage(recipe, run, points),
        behaviour_stage(recipe, run, points),
    ]
    if recipe.rl.engine == "trl":
        made.append(trajectory_stage(recipe, points))
    if recipe.analyze.landscape_problems:
        made.append(landscape_stage(recipe, run, points))
    return [*made, report_stage(run, [stage.name for stage in (*earlier, *made)])]


def evaluate_stage(recipe: Recipe, run: Path, arms: dict[str, Path]) -> Stage:
    """avg@k of every arm on the held-out problems, paired differences, and the loss on held-out general text."""
    problems, general = _problems(recipe, run), run / "corpus" / "held_out" / "general.jsonl"
    rehearsal = {"problems": problems, "general": general} if problems else {}
    parameters = dataclasses.asdict(recipe.evaluate)
    inputs = arms | rehearsal

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.stages.scores import arm_scores, general_losses, table_of

        request = Request(kind="scores", parameters=parameters, inputs=inputs)
        with publish(out, request) as draft:
            scores = arm_scores(recipe.evaluate, arms, problems, run / "generations", progress)
            losses = general_losses(arms, general) if recipe.data.rehearsal else {}
            result = table_of(recipe.evaluate, scores, losses, COMPARED, arms)
            (draft.path / "scores.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
            draft.metrics = {arm: entry["mean"]["avg"] for arm, entry in result["arms"].items() if "mean" in entry}

    return Stage(name="evaluate", does="four arms, held-out problems", inputs=inputs, parameters=parameters, run=work)


def retention_stage(recipe: Recipe, run: Path, points: dict[str, Path]) -> Stage:
    """Open LLM Leaderboard V1 and V2, every task against the base; a pico model is too small for them."""
    parameters = {"analysis": "retention", "tasks": RETENTION}

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.evaluation.leaderboards import tasks_of
        from prism_nemo.evaluation.retention import retained, run_retention
        from prism_nemo.stages.scores import part_of

        tasks = tasks_of(RETENTION)
        with publish(out, Request(kind="analysis", parameters=parameters, inputs=points)) as draft:
            scores = {}
            for number, (arm, model) in enumerate(points.items()):
                told = part_of(progress, number, arm, len(points), len(tasks))
                backend = recipe.evaluate.backend
                scores[arm] = run_retention(model, tasks, run / "retention", backend=backend, progress=told)
            rows = [
                {"arm": arm, "lost": row.lost, **dataclasses.asdict(row)}
                for arm in list(points)[1:]
                for row in retained(scores["base"], scores[arm])
            ]
            (draft.path / "report.json").write_text(json.dumps({"tasks": rows}, indent=1, allow_nan=False) + "\n")

    return Stage(name="analysis_retention", does="leaderboard tasks", inputs=points, parameters=parameters, run=work)


def paper_model(recipe: Recipe) -> str | None:
    """The paper's model that the analyses stand beside; none for a pico model, nor for one that the paper lacks."""
    from prism_nemo.analysis.paper import covered

    return recipe.model.family if not recipe.model.pico and covered(recipe.model.family) else None


def weights_stage(recipe: Recipe, points: dict[str, Path]) -> Stage:
    paper = paper_model(recipe)

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.analysis.weights_output import analyse_weights

        analyse_weights(out, points, paper=paper)

    does = "what changed in the weights"
    return Stage(name="analysis_weights", does=does, inputs=points, parameters={"paper": paper}, run=work, gpu=False)


def representations_stage(recipe: Recipe, run: Path, points: dict[str, Path]) -> Stage:
    texts = run / "corpus" / "held_out" / "mixed.jsonl" if recipe.data.rehearsal else run / "texts" / "texts.jsonl"
    settings = recipe.analyze
    parameters: dict[str, Any] = {"count": settings.cka_inputs, "max_tokens": settings.cka_max_tokens}
    parameters |= {"paper": paper_model(recipe)}

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.analysis.representations_output import analyse_representations

        analyse_representations(out, points, texts, **parameters)

    inputs = points | {"texts": texts}
    return Stage(name="analysis_cka", does="CKA per layer", inputs=inputs, parameters=parameters, run=work)


def behaviour_stage(recipe: Recipe, run: Path, points: dict[str, Path]) -> Stage:
    """From the samples that `evaluate` stored; nothing is sampled."""
    problems = _problems(recipe, run)
    inputs = {"scores": run / "evaluate"} | points | ({"problems": problems} if problems else {})
    paper = paper_model(recipe)

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.analysis.behaviour_output import analyse_behaviour
        from prism_nemo.stages.scores import asked

        benchmarks = asked(recipe.evaluate, problems)
        analyse_behaviour(out, [run / "generations"], benchmarks, models=points, paper=paper)

    does = "confidence and length"
    return Stage(name="analysis_behaviour", does=does, inputs=inputs, parameters={"paper": paper}, run=work)


def trajectory_stage(recipe: Recipe, points: dict[str, Path]) -> Stage:
    """Over the checkpoints that RL kept."""
    paper = paper_model(recipe)

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.analysis.trajectory_output import analyse_trajectory

        def counted(done: int, total: int) -> None:
            progress(done, total, "checkpoints")

        analyse_trajectory(out, points["rl"], start=points["mt"], paper=paper, progress=counted)

    inputs, parameters = {"start": points["mt"], "rl": points["rl"]}, {"paper": paper}
    return Stage(name="analysis_trajectory", does="the way of RL", inputs=inputs, parameters=parameters, run=work)


def landscape_stage(recipe: Recipe, run: Path, points: dict[str, Path]) -> Stage:
    """Merges between the three points, scored like them."""
    problems = _problems(recipe, run)
    settings = dataclasses.replace(
        recipe.evaluate,
        problems_per_domain=recipe.analyze.landscape_problems,
        samples_per_problem=recipe.analyze.landscape_samples,
    )
    inputs = points | ({"problems": problems} if problems else {})
    paper = paper_model(recipe)

    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.analysis.landscape_output import analyse_landscape
        from prism_nemo.evaluation.protocol import Prompting
        from prism_nemo.stages.scores import asked

        analyse_landscape(
            out,
            points,
            asked(settings, problems, at_most=settings.problems_per_domain),
            run / "generations",
            k=settings.samples_per_problem,
            prompting=Prompting(mode=settings.prompting),
            seed=settings.seed,
            backend=settings.backend,
            paper=paper,
            progress=lambda done, total: progress(done, total, "points between the checkpoints"),
        )

    return Stage(
        name="analysis_landscape",
        does="between the checkpoints",
        inputs=inputs,
        parameters=dataclasses.asdict(settings) | {"paper": paper},
        run=work,
    )


def _problems(recipe: Recipe, run: Path) -> Path | None:
    """The held-out problems of a rehearsal."""
    return run / "corpus" / "problems" / "held_out.jsonl" if recipe.data.rehearsal else None


def report_stage(run: Path, names: list[str]) -> Stage:
    def work(out: Path, progress: Progress) -> None:
        from prism_nemo.report import make_report

        make_report([run], out)

    inputs = {name: run / name for name in names}
    return Stage(name="report", does="one HTML page", inputs=inputs, run=work, gpu=False)

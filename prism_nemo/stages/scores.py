"""The four-arm table: scores per benchmark and domain, paired differences, retention."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.evaluation.averages import Weights, average, average_difference, average_weights
from prism_nemo.evaluation.benchmark import Benchmark, fewer, file_benchmarks
from prism_nemo.evaluation.held_out import HeldOutLoss, held_out_loss, loss_difference
from prism_nemo.evaluation.pipeline import evaluate_checkpoint
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.statistics import Estimate, paired_difference
from prism_nemo.evaluation.suites import load_suite
from prism_nemo.recipe import Evaluate
from prism_nemo.stages.stage import Progress
from prism_nemo.verifiers.problem import DOMAINS

WINDOW = 128
"""Tokens read at once for the loss on held-out text."""
LABELS = {"base": "base", "rl_base": "base + RL", "mt": "mid-trained", "rl": "mid-trained + RL"}
PROMPTINGS = {"raw": "raw completion", "chat": "the checkpoint's chat template", "template": "a given template"}


def arm_scores(
    settings: Evaluate, arms: Mapping[str, Path], problems: Path | None, store: Path, progress: Progress
) -> dict[str, list[Score]]:
    """Scores of each arm on each benchmark; samples that the store has are not made again."""
    benchmarks = asked(settings, problems)
    return {
        arm: evaluate_checkpoint(
            model,
            benchmarks,
            store,
            backend=settings.backend,
            prompting=Prompting(mode=settings.prompting),
            seed=settings.seed,
            progress=part_of(progress, number, arm, len(arms), 2 * len(benchmarks)),  # sampling and scoring
        )
        for number, (arm, model) in enumerate(arms.items())
    }


def asked(settings: Evaluate, problems: Path | None, *, at_most: int = 0) -> list[Benchmark]:
    """The benchmarks with the k and the sampling of the recipe: a rehearsal's own, or the suite's protocol.

    `at_most` > 0: so many questions of each of the suite's.
    """
    if problems is not None:
        benchmarks = file_benchmarks(problems, per_domain=settings.problems_per_domain)
        return [_with(benchmark, settings, settings.temperature) for benchmark in benchmarks]
    benchmarks = [_with(benchmark, settings) for benchmark in load_suite(settings.suite)]
    return [fewer(benchmark, at_most) for benchmark in benchmarks] if at_most else benchmarks


def _with(benchmark: Benchmark, settings: Evaluate, temperature: float | None = None) -> Benchmark:
    own = benchmark.sampling
    sampling = Sampling(
        temperature=own.temperature if temperature is None else temperature,
        top_p=own.top_p,
        max_new_tokens=min(own.max_new_tokens, settings.max_new_tokens),
        stop=own.stop,
    )
    return dataclasses.replace(benchmark, samples=settings.samples_per_problem or benchmark.samples, sampling=sampling)


def part_of(progress: Progress, number: int, arm: str, arms: int, steps: int) -> Any:
    """Progress of one arm on the scale of all: an arm is 1, and each of its `steps` (things told of) an equal part."""
    seen: list[str] = []

    def show(what: str, done: int, total: int) -> None:
        if what not in seen:
            seen.append(what)
        part = min(1.0, (seen.index(what) + done / max(total, 1)) / steps)
        progress(round(number + part, 3), arms, f"{LABELS.get(arm, arm)}, {what}")

    return show


def general_losses(arms: Mapping[str, Path], documents: Path) -> dict[str, HeldOutLoss]:
    """Loss of each arm on held-out general text: the retention measure."""
    return {arm: held_out_loss(model, documents, window=WINDOW) for arm, model in arms.items()}


def table_of(
    settings: Evaluate,
    scores: Mapping[str, Sequence[Score]],
    losses: Mapping[str, HeldOutLoss],
    compared: Sequence[tuple[str, str]],
    arms: Mapping[str, Path],
) -> dict[str, Any]:
    """`scores.json`: arms, paired differences between them, retention, and the protocol.

    Of an arm: `benchmarks` with all that was counted, and means under the names of `panels`.
    """
    prompted = {score.asked.prompting.mode for found in scores.values() for score in found if score.asked}
    return {
        "arms": {arm: _arm(arm, arms[arm], found) for arm, found in scores.items()},
        "differences": [row for pair in compared for row in (*_differences(pair, scores), *_forgotten(pair, losses))],
        "retention": {arm: _retained(loss) for arm, loss in losses.items()},
        "protocol": {
            "suite": settings.suite,
            "backend": settings.backend,
            "prompting": ", ".join(PROMPTINGS[mode] for mode in sorted(prompted)),
            "seed": settings.seed,
        },
    }


def panels(scores: Sequence[Score]) -> dict[str, Weights]:
    """What is averaged, name -> shares of benchmarks: each domain, avg3 and avg6 where they are defined, and `mean`.

    `mean` is avg3; of a rehearsal that has not all three domains it is the mean of those it has. Held-out benchmarks
    (AIME26) are in none.
    """
    found: dict[str, Weights] = {}
    for domain in DOMAINS:
        members = [score.benchmark for score in scores if score.domain == domain and not score.held_out]
        if members:
            found[domain] = {name: 1 / len(members) for name in members}
    averages = average_weights(scores)
    alike = {name: share / len(found) for shares in found.values() for name, share in shares.items()}
    shown = averages.get("avg3") or (alike if _from_a_file(scores) else None)
    return {**found, **averages, **({"mean": shown} if shown else {})}


def _from_a_file(scores: Sequence[Score]) -> bool:
    """Problems of a rehearsal, no benchmarks that the averages are defined on."""
    return all(score.task.endswith("@file") for score in scores)


def _arm(arm: str, model: Path, scores: Sequence[Score]) -> dict[str, Any]:
    means = {name: _avg(_mean(scores, shares)) for name, shares in panels(scores).items()}
    return {
        "label": LABELS[arm],
        "model": scores[0].model,
        "folder": model.name,
        "benchmarks": {score.benchmark: _benchmark(score) for score in scores},
        "domains": {name: means.pop(name) for name in DOMAINS if name in means},
        **means,
    }


def _mean(scores: Sequence[Score], shares: Weights) -> Estimate:
    """Of one benchmark its own estimate, whose interval has a width also where all questions agree."""
    alone = [score.avg for score in scores if len(shares) == 1 and score.benchmark in shares]
    return alone[0] if alone else average(scores, shares)


def _benchmark(score: Score) -> dict[str, Any]:
    sampling = score.asked.sampling if score.asked else Sampling()
    return {
        **_avg(score.avg),
        "domain": score.domain,
        "held_out": score.held_out,
        "k": score.k,
        "questions": score.questions,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": sampling.max_new_tokens,
        "format": score.think_format,
        "no_answer": score.no_answer,
        "truncated": score.truncated,
        "length": score.mean_tokens,
        "pass_at_k": score.pass_at,
        "nll": None if math.isnan(score.nll) else score.nll,
        "backends": list(score.backends),
    }


def _differences(pair: tuple[str, str], scores: Mapping[str, Sequence[Score]]) -> list[dict[str, Any]]:
    first, second = (scores[arm] for arm in pair)
    changes = {}
    for before, after in zip(first, second, strict=True):
        questions = list(before.question_scores)
        changes[before.benchmark] = paired_difference(
            [before.question_scores[question] for question in questions],
            [after.question_scores[question] for question in questions],
        )
    for name, shares in panels(first).items():
        alone = changes[next(iter(shares))] if len(shares) == 1 else None
        changes[name] = alone or average_difference(first, second, shares)
    return [_difference(pair, name, change) for name, change in changes.items()]


def _retained(loss: HeldOutLoss) -> dict[str, Any]:
    return {"loss": loss.loss.value, **_interval(loss.loss), "tokens": loss.tokens, "unit": "nats per token"}


def _forgotten(pair: tuple[str, str], losses: Mapping[str, HeldOutLoss]) -> list[dict[str, Any]]:
    """The change of the held-out loss between two arms, paired by document."""
    if not losses:
        return []
    return [_difference(pair, "retention", loss_difference(losses[pair[0]], losses[pair[1]]))]


def _difference(pair: tuple[str, str], what: str, change: Estimate) -> dict[str, Any]:
    return {
        "from": pair[0],
        "to": pair[1],
        "domain": what,
        "difference": change.value,
        **_interval(change),
        "paired": True,
    }


def _avg(estimate: Estimate) -> dict[str, float]:
    return {"avg": estimate.value, **_interval(estimate)}


def _interval(estimate: Estimate) -> dict[str, float]:
    return {"low": estimate.low, "high": estimate.high}

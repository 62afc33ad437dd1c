"""The four-arm table: scores per domain, paired differences, retention."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.evaluation.averages import average, average_difference
from prism_nemo.evaluation.benchmark import Benchmark, file_benchmarks
from prism_nemo.evaluation.held_out import HeldOutLoss, held_out_loss, loss_difference
from prism_nemo.evaluation.pipeline import evaluate
from prism_nemo.evaluation.protocol import Sampling
from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.statistics import Estimate, paired_difference
from prism_nemo.evaluation.store import GenerationStore
from prism_nemo.evaluation.suites import load_suite
from prism_nemo.recipe import Evaluate
from prism_nemo.stages.stage import Progress

WINDOW = 128
"""Tokens read at once for the loss on held-out text."""
LABELS = {"base": "base", "rl_base": "base + RL", "mt": "mid-trained", "rl": "mid-trained + RL"}


def arm_scores(
    settings: Evaluate, arms: Mapping[str, Path], problems: Path | None, store: Path, progress: Progress
) -> dict[str, list[Score]]:
    """Scores of each arm on each benchmark; samples that the store has are not made again."""
    benchmarks, k, sampling = asked(settings, problems)
    found: dict[str, list[Score]] = {}
    for number, (arm, model) in enumerate(arms.items()):
        with GenerationStore(store) as opened:
            found[arm] = evaluate(
                model,
                benchmarks,
                opened,
                k=k,
                sampling=sampling,
                seed=settings.seed,
                progress=_as_one(progress, number, arm, len(arms)),
            )
    return found


def asked(settings: Evaluate, problems: Path | None) -> tuple[list[Benchmark], int | None, Sampling | None]:
    """Benchmarks, and in a rehearsal the k and the sampling that replace their own."""
    if problems is None:
        return load_suite(settings.suite), settings.samples_per_problem or None, None
    sampling = Sampling(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens)
    return file_benchmarks(problems, per_domain=settings.problems_per_domain), settings.samples_per_problem, sampling


def _as_one(progress: Progress, number: int, arm: str, arms: int) -> Any:
    """All arms' steps on one scale: an arm is 1."""

    def show(what: str, done: int, total: int) -> None:
        progress(round(number + done / max(total, 1), 3), arms, f"{LABELS[arm]}, {what}")

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
    """`scores.json`: arms, paired differences between them, retention, and the protocol."""
    return {
        "arms": {arm: _arm(arm, arms[arm], found) for arm, found in scores.items()},
        "differences": [row for pair in compared for row in (*_differences(pair, scores), *_forgotten(pair, losses))],
        "retention": {arm: _retained(loss) for arm, loss in losses.items()},
        "protocol": {
            "suite": settings.suite,
            "temperature": settings.temperature,
            "k": settings.samples_per_problem,
            "prompting": "raw completion",
            "seed": settings.seed,
        },
    }


def _arm(arm: str, model: Path, scores: Sequence[Score]) -> dict[str, Any]:
    mean = average(scores, _shares(scores))
    domains = {
        _row(score, scores): {
            "avg": score.avg.value,
            **_interval(score.avg),
            "k": score.k,
            "questions": score.questions,
            "format": score.think_format,
            "truncated": score.truncated,
            "length": score.mean_tokens,
            "pass_at_k": score.pass_at,
            "nll": None if math.isnan(score.nll) else score.nll,
        }
        for score in scores
    }
    return {
        "label": LABELS[arm],
        "model": scores[0].model,
        "folder": model.name,
        "domains": domains,
        "mean": {"avg": mean.value, **_interval(mean)},
    }


def _row(score: Score, scores: Sequence[Score]) -> str:
    """A benchmark is called by its domain where it is the only one of it, by its name otherwise."""
    alone = sum(other.domain == score.domain for other in scores) == 1
    return score.domain if alone else score.benchmark


def _shares(scores: Sequence[Score]) -> dict[str, float]:
    """Every domain counts alike, and within it every benchmark."""
    domains = [score.domain for score in scores]
    return {score.benchmark: 1 / len(set(domains)) / domains.count(score.domain) for score in scores}


def _differences(pair: tuple[str, str], scores: Mapping[str, Sequence[Score]]) -> list[dict[str, Any]]:
    first, second = (scores[arm] for arm in pair)
    rows = []
    for before, after in zip(first, second, strict=True):
        questions = list(before.question_scores)
        change = paired_difference(
            [before.question_scores[question] for question in questions],
            [after.question_scores[question] for question in questions],
        )
        rows.append(_difference(pair, _row(before, first), change))
    return [*rows, _difference(pair, "mean", average_difference(first, second, _shares(first)))]


def _retained(loss: HeldOutLoss) -> dict[str, Any]:
    return {"loss": loss.loss.value, **_interval(loss.loss), "tokens": loss.tokens, "unit": "nats per token"}


def _forgotten(pair: tuple[str, str], losses: Mapping[str, HeldOutLoss]) -> list[dict[str, Any]]:
    """The change of the held-out loss between two arms, paired by document."""
    if not losses:
        return []
    return [_difference(pair, "retention", loss_difference(losses[pair[0]], losses[pair[1]]))]


def _difference(pair: tuple[str, str], domain: str, change: Estimate) -> dict[str, Any]:
    return {
        "from": pair[0],
        "to": pair[1],
        "domain": domain,
        "difference": change.value,
        **_interval(change),
        "paired": True,
    }


def _interval(estimate: Estimate) -> dict[str, float]:
    return {"low": estimate.low, "high": estimate.high}

"""Models side by side: paired differences on the same questions, both averages, and honest names for chosen steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prism_nemo.errors import InputError
from prism_nemo.evaluation.averages import average, average_difference, average_weights, paired_changes
from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.statistics import Estimate, paired_difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model on one benchmark or average."""

    score: Estimate
    difference: Estimate | None
    """To the first model, paired by question; None for the first model itself."""
    complete: bool
    """All samples asked for were there."""

    @property
    def significant(self) -> bool:
        """The difference's 95 % interval excludes 0."""
        return self.difference is not None and not self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Benchmarks and averages (rows) of models (columns); the first model is what the others are compared with."""

    models: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Cell]]
    """Row -> model -> cell. Rows: benchmarks as they were run, then avg3 and avg6 where all their members are."""
    panels: Mapping[str, tuple[str, ...]]
    """Average -> its members."""
    protocols: Mapping[str, str]
    """Benchmark -> "k=64, 30 questions, temperature 0.6, top-p 0.95, at most 32,768 tokens; asked raw"."""


def compare(models: Mapping[str, Sequence[Score]]) -> Comparison:
    """Compare models, name -> scores. Raises InputError when two of them were asked differently.

    All models must have the same benchmarks, each with the same sampling and k: otherwise a difference means nothing.
    The prompting may differ, as of a base and a model that chats; the table says how each was asked.
    """
    if len(models) < 1 or not all(models.values()):
        empty = [name for name, scores in models.items() if not scores]
        raise InputError(f"nothing to compare: no scores of {', '.join(empty) or 'any model'}")
    tables = _alike(models)
    first = next(iter(tables.values()))
    rows: dict[str, dict[str, Cell]] = {
        benchmark: {name: _cell(first[benchmark], table[benchmark]) for name, table in tables.items()}
        for benchmark in first
    }
    weights = average_weights(list(first.values()))
    for label, shares in weights.items():
        rows[label] = {
            name: Cell(
                score=average(list(table.values()), shares),
                difference=None
                if table is first
                else average_difference(list(first.values()), list(table.values()), shares),
                complete=all(table[member].complete for member in shares),
            )
            for name, table in tables.items()
        }
    return Comparison(
        models=tuple(tables),
        rows=rows,
        panels={label: tuple(shares) for label, shares in weights.items()},
        protocols={name: _protocol(name, tables) for name in first},
    )


def _alike(models: Mapping[str, Sequence[Score]]) -> dict[str, dict[str, Score]]:
    """Model -> benchmark -> score, all asked alike. Raises InputError otherwise."""
    tables = {name: _by_benchmark(name, scores) for name, scores in models.items()}
    first_name, first = next(iter(tables.items()))
    for name, table in tables.items():
        _check_same(first_name, first, name, table)
    return tables


def _by_benchmark(name: str, scores: Sequence[Score]) -> dict[str, Score]:
    table: dict[str, Score] = {}
    for score in scores:
        if score.benchmark in table:
            raise InputError(
                f"{name} has two scores of {score.benchmark}: {_asked(table[score.benchmark])}, and {_asked(score)}; "
                "choose one with --protocol or --seed"
            )
        table[score.benchmark] = score
    return table


def _check_same(first_name: str, first: Mapping[str, Score], name: str, table: Mapping[str, Score]) -> None:
    if set(first) != set(table):
        odd = ", ".join(sorted(set(first) ^ set(table)))
        raise InputError(
            f"{first_name} and {name} were not run on the same benchmarks: {odd} is missing in one of them"
        )
    for benchmark in first:
        left, right = first[benchmark], table[benchmark]
        if left.k != right.k or left.task != right.task:
            raise InputError(
                f"{benchmark}: {first_name} has k={left.k} of {left.task}, {name} k={right.k} of {right.task}; "
                "only equal protocols are compared"
            )
        if left.asked and right.asked and left.asked.sampling != right.asked.sampling:
            raise InputError(
                f"{benchmark}: {first_name} was sampled with {_sampled(left)}, {name} with {_sampled(right)}; "
                "only equal protocols are compared"
            )
        if set(left.question_scores) != set(right.question_scores):
            raise InputError(f"{benchmark}: {first_name} and {name} have samples of different questions; finish both")


def _asked(score: Score) -> str:
    how = f" ({score.asked.describe()})" if score.asked else ""
    return f"protocol {score.protocol[:8]}, seed {score.seed}{how}"


def _sampled(score: Score) -> str:
    return score.asked.sampling.describe() if score.asked else "unknown sampling"


def _protocol(benchmark: str, tables: Mapping[str, Mapping[str, Score]]) -> str:
    scores = {name: table[benchmark] for name, table in tables.items()}
    first = next(iter(scores.values()))
    modes = {name: score.asked.prompting.mode if score.asked else "unknown" for name, score in scores.items()}
    alike = len(set(modes.values())) == 1
    asked = modes.popitem()[1] if alike else ", ".join(f"{name} {mode}" for name, mode in modes.items())
    return f"k={first.k}, {first.questions} questions, {_sampled(first)}; asked {asked}"


def _cell(first: Score, score: Score) -> Cell:
    difference = None
    if score is not first:
        paired_changes(first.question_scores, score.question_scores)
        questions = list(first.question_scores)
        difference = paired_difference(
            [first.question_scores[question] for question in questions],
            [score.question_scores[question] for question in questions],
        )
    return Cell(score=score.avg, difference=difference, complete=score.complete)


def choose_steps(steps: Mapping[int, Sequence[Score]], by: str = "avg3") -> dict[str, dict[str, tuple[int, float]]]:
    """What a run's evaluations become, under three names: label -> benchmark -> (step, score as a fraction).

    "final step": the last one. "one joint best step": the step with the best `by` (avg3, avg6 or a benchmark), for all
    benchmarks alike. "per-benchmark maximum": each benchmark's own best step, biased upward.
    Raises InputError without steps, when they were asked differently, or when `by` is not defined for them.
    """
    empty = [str(step) for step, scores in steps.items() if not scores]
    if empty or not steps:
        raise InputError(f"no scores of step {', '.join(empty)}" if empty else "no steps to choose from")
    tables = _alike({f"step {step}": scores for step, scores in steps.items()})
    values = {
        step: {name: score.avg.value for name, score in table.items()}
        for step, table in zip(steps, tables.values(), strict=True)
    }
    for step, scores in steps.items():
        for label, shares in average_weights(scores).items():
            values[step][label] = sum(share * values[step][name] for name, share in shares.items())
    if any(by not in found for found in values.values()):
        raise InputError(f"{by} is not defined at every step; choose one of {', '.join(next(iter(values.values())))}")
    last, joint = max(values), max(sorted(values), key=lambda step: values[step][by])
    best = {
        name: max(((step, found[name]) for step, found in sorted(values.items()) if name in found), key=lambda x: x[1])
        for name in values[last]
    }
    return {
        "final step": {name: (last, value) for name, value in values[last].items()},
        f"one joint best step (by {by})": {name: (joint, value) for name, value in values[joint].items()},
        # The maxima of averages are left out: a mean of maxima is no model's score.
        "per-benchmark maximum": {name: place for name, place in best.items() if name not in ("avg3", "avg6")},
    }

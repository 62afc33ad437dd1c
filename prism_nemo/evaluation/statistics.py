"""Scores with honest intervals: questions are the sampling units, samples of one question are not independent.

Conventions: `correct` is (questions, samples) of 0/1; a score is the mean over questions of the mean over samples.
Intervals are bootstraps over questions, widened for few questions as in Hesterberg, "What Teachers Should Know About
the Bootstrap" (2015), section 5.3 (30 AIME questions would otherwise cover 92 % instead of 95 %). Where fewer than RARE
questions tell anything (a base that solves 2 of 30) resampling cannot show what the others might do: such intervals
are at least as wide as Wilson's over questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
RESAMPLES = 10_000
LEVEL = 0.95
RARE = 10
"""Below so many a bootstrap alone may cover 80 % instead of 95 % (the tests simulate it)."""
BLOCK = 1 << 22
"""Resampled values held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its interval, as fractions (or in the unit of what was estimated)."""

    value: float
    low: float
    high: float


def pass_at_k(correct: ArrayLike, k: int) -> Array:
    """Per question: the chance that one of k draws without replacement from its samples is right.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), equation 1.
    Raises ValueError when a question has fewer than k samples.
    """
    right = np.asarray(correct, dtype=np.float64)
    n, c = right.shape[1], right.sum(axis=1)
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs 1 <= k <= {n} samples per question")
    steps = np.arange(k)
    fail = np.clip((n - c[:, None] - steps) / (n - steps), 0.0, None)
    return np.asarray(1.0 - fail.prod(axis=1))


def majority(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Whether the most frequent answer of one question is right; equally frequent ones share the vote.

    An unreadable answer (None) never wins, unless there is no other: then 0. `correct[i]` judges `answers[i]`.
    """
    votes: dict[str, list[bool]] = {}
    for answer, right in zip(answers, correct, strict=True):
        if answer is not None:
            votes.setdefault(answer, []).append(right)
    if not votes:
        return 0.0
    most = max(len(judged) for judged in votes.values())
    winners = [judged for judged in votes.values() if len(judged) == most]
    return float(np.mean([np.mean(judged) for judged in winners]))


def bootstrap_draws(
    question_scores: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Array:
    """Resampled means of per-question scores, (resamples,), spread by the small-sample factor around the mean.

    Draws of different benchmarks may be averaged: benchmarks are strata. One question has no spread: all draws equal.
    """
    scores = np.asarray(question_scores, dtype=np.float64)
    questions = len(scores)
    rng, rows = np.random.default_rng(seed), max(1, BLOCK // questions)
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    draws = np.concatenate(
        [scores[rng.integers(0, questions, (size, questions), dtype=np.int32)].mean(axis=1) for size in sizes]
    )
    return scores.mean() + (draws - scores.mean()) * _small_sample_factor(questions, level)


def _small_sample_factor(questions: int, level: float) -> float:
    """sqrt(n/(n-1)) * t / z: percentiles become as wide as Student's interval for the mean of n questions."""
    if questions < 2:
        return 1.0
    tail = (1 + level) / 2
    return float(np.sqrt(questions / (questions - 1)) * stats.t.ppf(tail, questions - 1) / stats.norm.ppf(tail))


def percentiles(draws: Array, level: float = LEVEL) -> tuple[float, float]:
    """The equal-tailed interval of resampled values."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_interval(
    question_scores: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Estimate:
    """Mean of per-question scores in [0, 1] with its interval.

    At least as wide as Wilson's over questions where all but a few questions are quite wrong, or all but a few right.
    """
    scores = np.asarray(question_scores, dtype=np.float64)
    _need_questions(scores)
    value, questions = float(scores.mean()), len(scores)
    low, high = percentiles(bootstrap_draws(scores, resamples=resamples, seed=seed, level=level), level)
    if tells_little(scores) or tells_little(1 - scores):
        least, most = wilson(value * questions, questions, level)
        low, high = min(low, least), max(high, most)
    return Estimate(value=value, low=max(0.0, low), high=min(1.0, high))


def paired_difference(
    first: ArrayLike, second: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Estimate:
    """second - first over the same questions in the same order, per-question scores in [0, 1].

    At least as wide as Wilson's bounds of what was gained and of what was lost where only a few questions changed, or
    all by the same amount.  Raises ValueError for unequal lengths.
    """
    before, after = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if before.shape != after.shape:
        raise ValueError(f"paired questions must be the same: {len(before)} and {len(after)}")
    _need_questions(before)
    change = after - before
    value = float(change.mean())
    low, high = percentiles(bootstrap_draws(change, resamples=resamples, seed=seed, level=level), level)
    if tells_little(change):
        low = min(low, value - possible_gain(-change, level))
        high = max(high, value + possible_gain(change, level))
    return Estimate(value=value, low=max(-1.0, low), high=min(1.0, high))


def tells_little(values: Array) -> bool:
    """Whether nearly all values are 0, or all the same, so that resampling them shows too little."""
    return bool(np.count_nonzero(values) < min(RARE, len(values) / 2) or np.ptp(values) < 1e-12)


def possible_gain(values: Array, level: float = LEVEL) -> float:
    """By how much the mean of the positive values, at most 1, may be larger: Wilson's upper bound over questions."""
    gained = float(np.clip(values, 0, None).mean())
    return wilson(gained * len(values), len(values), level)[1] - gained


def mean_interval(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL) -> Estimate:
    """Mean of unbounded per-document values with its bootstrap interval; one value has no interval (NaN)."""
    array = np.asarray(values, dtype=np.float64)
    _need_questions(array)
    if len(array) == 1:
        return Estimate(value=float(array[0]), low=float("nan"), high=float("nan"))
    low, high = percentiles(bootstrap_draws(array, resamples=resamples, seed=seed, level=level), level)
    return Estimate(value=float(array.mean()), low=low, high=high)


def wilson(successes: float, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927): never of zero width, never outside [0, 1]."""
    z = float(stats.norm.ppf((1 + level) / 2))
    share, extra = successes / trials, z * z / trials
    centre = (share + extra / 2) / (1 + extra)
    half = z * np.sqrt(share * (1 - share) / trials + extra / (4 * trials)) / (1 + extra)
    low, high = float(centre - half), float(centre + half)
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)


def _need_questions(scores: Array) -> None:
    if scores.size == 0:
        raise ValueError("no questions: nothing to estimate")

"""The paper's two averages, each under its own name: they differ by up to ten points and are never mixed.

avg3: mean over math, code and science of the mean over the domain's benchmarks ("AVG" of Table 11).
avg6: plain mean of the six benchmarks ("AVG" of the project page).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xxhash

from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.statistics import (
    Array,
    Estimate,
    bootstrap_draws,
    percentiles,
    possible_gain,
    tells_little,
    wilson,
)
from prism_nemo.evaluation.suites import PAPER
from prism_nemo.verifiers.problem import DOMAINS

Weights = Mapping[str, float]
"""Benchmark -> share of an average; the shares add up to 1."""


def average_weights(scores: Sequence[Score]) -> dict[str, Weights]:
    """The averages that these benchmarks allow: avg3 with all three domains, avg6 with exactly the paper's six.

    Held-out benchmarks (AIME26) are no part of either. A missing benchmark is not replaced: then there is no average.
    """
    members = {score.benchmark: score.domain for score in scores if not score.held_out}
    found: dict[str, Weights] = {}
    if set(members.values()) == set(DOMAINS):
        sizes = {domain: list(members.values()).count(domain) for domain in DOMAINS}
        found["avg3"] = {name: 1 / 3 / sizes[domain] for name, domain in members.items()}
    if set(members) == set(PAPER):
        found["avg6"] = dict.fromkeys(members, 1 / 6)
    return found


def average(scores: Sequence[Score], weights: Weights) -> Estimate:
    """A weighted average of one model's scores; questions are resampled within each benchmark."""
    by_name = {score.benchmark: list(score.question_scores.values()) for score in scores}
    return combine({name: by_name[name] for name in weights}, weights, beside=beside_scores, lowest=0, highest=1)


def average_difference(first: Sequence[Score], second: Sequence[Score], weights: Weights) -> Estimate:
    """second - first, paired by question. Raises ValueError when the questions differ."""
    before, after = ({score.benchmark: score.question_scores for score in scores} for scores in (first, second))
    changes = {name: paired_changes(before[name], after[name]) for name in weights}
    return combine(changes, weights, lowest=-1, highest=1)


def paired_changes(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    """after - before for every question. Raises ValueError unless both have the same questions."""
    if set(before) != set(after):
        raise ValueError(f"scores of different questions: {len(set(before) ^ set(after))} are in one of them only")
    return [after[question] - before[question] for question in before]


def beside_changes(changes: Array, draws: Array) -> tuple[float, float]:
    """What may have been lost and gained beyond what changed, as in `paired_difference`."""
    return (possible_gain(-changes), possible_gain(changes)) if tells_little(changes) else (0.0, 0.0)


def beside_scores(scores: Array, draws: Array) -> tuple[float, float]:
    """What makes the interval of scores in [0, 1] as wide as in `score_interval`."""
    if not (tells_little(scores) or tells_little(1 - scores)):
        return 0.0, 0.0
    value = float(scores.mean())
    (low, high), (least, most) = percentiles(draws), wilson(value * len(scores), len(scores))
    return _lacking(value - low, value - least), _lacking(high - value, most - value)


def _lacking(width: float, wanted: float) -> float:
    """What reaches `wanted` when it is added to `width` in quadrature."""
    return math.sqrt(max(0.0, wanted**2 - width**2))


def combine(
    values: Mapping[str, Sequence[float]],
    weights: Weights,
    *,
    beside: Callable[[Array, Array], tuple[float, float]] = beside_changes,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> Estimate:
    """The weighted mean of the means of several strata, with the interval from resampling within each.

    A stratum whose values tell little adds, in quadrature, what Wilson's bounds allow beside its draws: `beside`, from
    values and draws, below and above. Ends stay within the bounds.
    """
    total: Array = np.zeros(1)
    more = less = 0.0
    for name, weight in weights.items():
        # Each benchmark has its own random numbers: the same ones would tie strata of equal size together.
        draws = bootstrap_draws(values[name], seed=xxhash.xxh32_intdigest(name.encode()))
        total = total + weight * draws
        below, above = beside(np.asarray(values[name], dtype=np.float64), draws)
        less, more = math.hypot(less, weight * below), math.hypot(more, weight * above)
    low, high = percentiles(total)
    value = sum(weight * float(np.mean(values[name])) for name, weight in weights.items())
    low, high = value - math.hypot(value - low, less), value + math.hypot(high - value, more)
    return Estimate(value=value, low=max(low, min(lowest, value)), high=min(high, max(highest, value)))

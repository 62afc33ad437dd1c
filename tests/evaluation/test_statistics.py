"""Statistics against closed forms, scipy and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prism_nemo.evaluation import statistics as s


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_average_over_all_subsets(case):
    n, c, k = case
    samples = [1] * c + [0] * (n - c)
    brute = np.mean([any(chosen) for chosen in itertools.combinations(samples, k)])
    assert s.pass_at_k([samples], k)[0] == pytest.approx(brute)


def test_pass_at_k_agrees_with_the_hypergeometric_law_and_refuses_too_many():
    correct = (np.arange(64) < 5)[None]
    assert s.pass_at_k(correct, 16)[0] == pytest.approx(1 - stats.hypergeom(64, 5, 16).pmf(0))
    assert s.pass_at_k(correct, 1)[0] == pytest.approx(correct.mean())
    with pytest.raises(ValueError, match="pass@65"):
        s.pass_at_k(correct, 65)


def test_majority():
    assert s.majority(["4", "4", "5"], [True, True, False]) == 1.0
    assert s.majority(["4", "5"], [True, False]) == 0.5
    assert s.majority([None, None, "5"], [False, False, True]) == 1.0
    assert s.majority([None, None], [False, False]) == 0.0


@given(st.integers(1, 300), st.data())
def test_wilson_agrees_with_scipy(n, data):
    c = data.draw(st.integers(0, n))
    expected = stats.binomtest(c, n).proportion_ci(0.95, method="wilson")
    assert s.wilson(c, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_at_the_boundary():
    estimate = s.score_interval(np.zeros(8))
    assert (estimate.value, estimate.low) == (0.0, 0.0)
    assert estimate.high == pytest.approx(0.324, abs=1e-3)
    assert s.score_interval([0.5]).high > 0.5


def test_bootstrap_spread_is_the_standard_error_of_the_mean():
    scores = np.random.default_rng(3).beta(1, 2, 200)
    draws = s.bootstrap_draws(scores, resamples=50_000)
    factor = math.sqrt(200 / 199) * stats.t.ppf(0.975, 199) / stats.norm.ppf(0.975)
    assert draws.mean() == pytest.approx(scores.mean(), abs=1e-3)
    assert draws.std() == pytest.approx(scores.std() / math.sqrt(200) * factor, rel=0.02)


def test_interval_agrees_with_scipys_bootstrap_for_many_questions():
    scores = np.random.default_rng(4).random(400)
    theirs = stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    ours = s.score_interval(scores, resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def simulated(rng, questions, k):
    """Samples of questions of very different difficulty: (questions, k) of 0/1, true mean 1/3."""
    return rng.random((questions, k)) < rng.beta(0.5, 1.0, questions)[:, None]


@pytest.mark.parametrize(("questions", "k"), [(30, 64), (198, 3)])
def test_coverage_of_the_interval(questions, k):
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(1000):
        estimate = s.score_interval(simulated(rng, questions, k).mean(axis=1), resamples=1000, seed=i)
        hits += estimate.low <= 1 / 3 <= estimate.high
    assert 930 <= hits <= 970


@pytest.mark.parametrize(("mean", "questions", "k"), [(0.01, 30, 64), (0.03, 30, 64), (0.01, 279, 3), (0.95, 30, 64)])
def test_coverage_where_few_questions_tell_anything(mean, questions, k):
    """A base on AIME: most questions are never solved. A bootstrap alone covers 80 to 90 % here."""
    rng, hits = np.random.default_rng(0), 0
    for i in range(1000):
        chances = rng.beta(0.4 * mean, 0.4 * (1 - mean), questions)
        estimate = s.score_interval(rng.binomial(k, chances) / k, resamples=500, seed=i)
        hits += estimate.low <= mean <= estimate.high
    assert hits >= 930


def test_coverage_of_differences_where_few_questions_change():
    rng, hits = np.random.default_rng(0), 0
    for i in range(1000):
        first, gain = rng.beta(0.004, 0.396, 30), rng.random(30) < 0.03
        second = np.where(gain, 1.0, first)  # the mean gains 3 % of what is not yet right
        estimate = s.paired_difference(
            rng.binomial(64, first) / 64, rng.binomial(64, second) / 64, resamples=500, seed=i
        )
        hits += estimate.low <= 0.03 * 0.99 <= estimate.high
    assert hits >= 930


def test_four_questions_better_and_none_worse_are_no_proof():
    """A sign test says p = 1/8."""
    found = s.paired_difference(np.zeros(30), [0.5] * 4 + [0.0] * 26)
    assert found.low < 0 < found.value < found.high
    assert s.paired_difference(np.zeros(30), [0.5] * 12 + [0.0] * 18).low > 0


def test_coverage_of_paired_differences():
    rng, hits = np.random.default_rng(1), 0
    for i in range(1000):
        ability = rng.beta(0.5, 1.0, 60)
        better = ability**0.5  # mean: B(1, 1) / B(0.5, 1) = 1/2
        first = (rng.random((60, 16)) < ability[:, None]).mean(axis=1)
        second = (rng.random((60, 16)) < better[:, None]).mean(axis=1)
        estimate = s.paired_difference(first, second, resamples=1000, seed=i)
        hits += estimate.low <= 1 / 2 - 1 / 3 <= estimate.high
    assert 930 <= hits <= 970


def test_pairing_narrows_and_agrees_with_the_paired_t_interval():
    rng = np.random.default_rng(2)
    first = rng.beta(0.5, 1.0, 100)
    second = np.clip(first + rng.normal(0.05, 0.05, 100), 0, 1)
    paired = s.paired_difference(first, second)
    theirs = stats.ttest_rel(second, first).confidence_interval()
    assert (paired.low, paired.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
    assert paired.value == pytest.approx(second.mean() - first.mean())
    apart = math.hypot(first.std(), second.std()) / 10
    assert paired.high - paired.low < apart


def test_equal_runs_differ_by_nothing_but_not_surely():
    same = s.paired_difference(np.zeros(30), np.zeros(30))
    assert same.value == 0
    assert same.low == -same.high != 0
    with pytest.raises(ValueError, match="must be the same"):
        s.paired_difference(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="no questions"):
        s.score_interval([])


def test_mean_interval_of_losses():
    values = np.random.default_rng(5).gamma(9, 0.5, 300)
    estimate = s.mean_interval(values)
    theirs = stats.t.interval(0.95, 299, values.mean(), stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx(theirs, abs=0.02)
    assert math.isnan(s.mean_interval([1.0]).low)

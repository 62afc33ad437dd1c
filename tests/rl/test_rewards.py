"""Rewards: every part, its bounds, and that the format gate gates correctness alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.recipe.parts import Rewards
from prism_nemo.rl.rewards import overlong_share, repeated_share, reward
from prism_nemo.verifiers import Verdict

RIGHT = Verdict(outcome="correct", think_format=True)


def of(verdict=RIGHT, tokens=(1, 2, 3), *, stopped=True, limit=100, **rules):
    return reward(verdict, tokens, stopped=stopped, max_new_tokens=limit, rules=Rewards(**rules))


def test_correct_in_form_is_one():
    assert of().total == 1.0


def test_the_gate():
    bare = Verdict(outcome="correct", think_format=False)
    assert of(bare).total == 0.0
    assert of(bare, format_gate=False).total == 1.0


@pytest.mark.parametrize("outcome", ["wrong", "no_answer", "timeout", "error"])
def test_nothing_else_is_rewarded(outcome):
    assert of(Verdict(outcome=outcome, think_format=True)).total == 0.0


def test_parts_add_up():
    made = of(tokens=[1] * 90, stopped=False, stop_penalty=0.5, repetition_penalty=0.2, overlong_buffer=20)
    assert made.correctness == 1.0
    assert made.stop == -0.5
    assert made.repetition == pytest.approx(-0.2 * (1 - 1 / 83))
    assert made.overlong == pytest.approx(-0.5)
    assert made.total == pytest.approx(1.0 - 0.5 - 0.2 * 82 / 83 - 0.5)


def test_overlong_is_daps_equation():
    # Eq. 13 with L_max = 20480, L_cache = 4096: 0 below 16384, (16384 - y) / 4096 above it, -1 at the end
    for length, expected in [(0, 0), (16_384, 0), (18_432, 0.5), (20_480, 1), (99_999, 1)]:
        assert overlong_share(length, 20_480, 4096) == expected
    assert overlong_share(99, 100, 0) == 0


def test_repetition_by_counting():
    assert repeated_share([1, 2, 3], 8) == 0
    assert repeated_share([1, 2, 1, 2, 1], 2) == 0.5  # 12, 21, 12, 21
    assert repeated_share([7] * 10, 1) == 0.9


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 9))
def test_repetition_is_a_share_and_agrees_with_a_slow_count(tokens, n):
    grams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
    repeats = sum(gram in grams[:index] for index, gram in enumerate(grams))
    assert repeated_share(tokens, n) == pytest.approx(repeats / len(grams) if grams else 0)

"""Generated problems: every worked solution is right, judged by the real verifiers, and no problem is in two parts."""

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.data.rehearsal import code, math, science
from prism_nemo.data.rehearsal.corpus import _problem, write_corpus
from prism_nemo.verifiers import load_problems, verify_many

DRAWS = {"math": math.draw, "code": code.draw, "science": science.draw}


@given(st.integers(1, 999), st.integers(1, 999))
def test_the_steps_of_a_sum_give_its_digits(a: int, b: int) -> None:
    totals = [int(step.split("=")[1]) for step in math.sum_steps(a, b).split(", ")]
    digits = "".join(str(total % 10) for total in reversed(totals))
    assert int((str(totals[-1] // 10) if totals[-1] > 9 else "") + digits) == a + b


@given(st.integers(10, 99), st.integers(10, 99))
def test_the_steps_of_a_difference_give_its_digits(a: int, b: int) -> None:
    low, high = sorted((a, b))
    ones, tens = (int(step.split("=")[1]) for step in math.difference_steps(high, low).split(", "))
    assert 10 * tens + ones == high - low


@pytest.mark.parametrize("domain", DRAWS)
def test_worked_solutions_are_right_and_wrong_ones_are_not(domain: str) -> None:
    rng = random.Random(1)
    worked = [DRAWS[domain](rng) for _ in range(40)]
    problems = [_problem(entry) for entry in worked]
    right = [f"<think>{entry.thought}</think>{entry.answer}" for entry in worked]
    assert all(verdict.correct and verdict.think_format for verdict in verify_many(problems, right))
    wrong = [f"<think></think>{_spoiled(entry.answer)}" for entry in worked]
    assert not any(verdict.correct for verdict in verify_many(problems, wrong))


def _texts(path: Path) -> list[str]:
    """Without the white space, of which a docstring has more in its module."""
    return ["".join(json.loads(line)["text"].split()) for line in path.read_text().splitlines()]


def _spoiled(answer: str) -> str:
    if len(answer) == 1 and answer.isalpha():
        return {"A": "B"}.get(answer, "A")
    if answer.startswith("def"):
        return re.sub("return .*", "return None", answer)
    return str(int(answer) + 1)


def test_the_corpus_is_the_same_twice_and_its_parts_are_disjoint(tmp_path: Path) -> None:
    first, second = write_corpus(tmp_path / "a", seed=1), write_corpus(tmp_path / "b", seed=1)
    files = sorted(path.relative_to(first) for path in first.rglob("*.jsonl"))
    assert files
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    prompts = {
        part: {problem.prompt for problem in load_problems(first / "problems" / f"{part}.jsonl")}
        for part in ("rl", "held_out")
    }
    trained = "".join(
        (first / "documents" / f"{name}.jsonl").read_text() for name in ("math", "code_problems", "science")
    )
    assert not prompts["rl"] & prompts["held_out"]
    trained_on = "\n".join(
        text for name in ("general", "code") for text in _texts(first / "documents" / f"{name}.jsonl")
    )
    for name, count in (("general", 80), ("long", 48)):
        held_out = _texts(first / "held_out" / f"{name}.jsonl")
        assert len(held_out) == count
        assert not [text for text in held_out if text in trained_on]
    assert not [prompt for prompt in list(prompts["held_out"])[:300] if f'"{prompt.strip()}\\n' in trained]

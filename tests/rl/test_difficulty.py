"""The difficulty filter: the paper's rules on known counts, and that a killed run goes on where it was."""

import json
from collections import Counter

import pytest

from prism_nemo.errors import InputError
from prism_nemo.evaluation.protocol import Prompting
from prism_nemo.evaluation.sample import Sample
from prism_nemo.evaluation.store import GenerationStore
from prism_nemo.rl import difficulty
from prism_nemo.rl.difficulty import SCIENCE_FORMATS, choose, filter_prompts
from prism_nemo.verifiers import Problem, load_problems, save_problems


def problem(domain, number):
    answer = "B" if domain == "science" else "7"
    return Problem(
        id=f"{domain}{number}", domain=domain, prompt=f"{domain} {number}", answer=answer, source="s", licence="MIT"
    )


class Scripted:
    """A backend that solves prompt n in n of its samples."""

    def __init__(self, die_after=None):
        self.facts = {"fingerprint": "f" * 32, "name": "scripted", "path": ""}
        self.prompting = Prompting()
        self.failures = {}
        self.asked = 0
        self.die_after = die_after

    def check(self, requests, sampling):
        pass

    def batches(self, requests, sampling):
        return [list(requests)]

    def complete(self, pieces, sampling):
        for request in (request for piece in pieces for request in piece):
            if self.die_after is not None and self.asked >= self.die_after:
                raise KeyboardInterrupt
            self.asked += 1
            number = int(request.key.question[-1])
            right = "B" if request.key.question.startswith("science") else "7"
            text = f"<think>x</think>{right if request.key.index < number else 'no'}"
            key = {name: getattr(request.key, name) for name in request.key.__dataclass_fields__}
            yield [Sample(**key, text=text, tokens=3, finish="stop", nll=0.1, seconds=0.0, backend="scripted")]


@pytest.fixture
def pool(tmp_path):
    problems = [problem(domain, number) for domain in ("math", "science") for number in range(5)]
    save_problems(tmp_path / "p.jsonl", problems)
    return tmp_path / "p.jsonl", problems


def test_unbalanced_rule_end_to_end(tmp_path, pool):
    with GenerationStore(tmp_path / "store") as store:
        out = filter_prompts(pool[0], tmp_path / "out", Scripted(), store, samples=4)
    kept = [entry.id for entry in load_problems(out / "problems.jsonl")]
    assert kept == ["math1", "science1", "science2", "science3", "science4"]
    solved = {row["id"]: row["solved"] for row in map(json.loads, (out / "solved.jsonl").read_text().splitlines())}
    assert solved == {entry.id: int(entry.id[-1]) for entry in pool[1]}


def test_a_killed_run_samples_nothing_twice(tmp_path, pool, monkeypatch):
    monkeypatch.setattr(difficulty, "PROMPTS_AT_A_TIME", 3)
    store = GenerationStore(tmp_path / "store")
    first = Scripted(die_after=17)
    with pytest.raises(KeyboardInterrupt):
        filter_prompts(pool[0], tmp_path / "out", first, store, samples=4)
    assert not (tmp_path / "out").exists()
    torn = tmp_path / ".out.partial" / "solved.jsonl"
    torn.write_text(torn.read_text() + '{"id": "math')
    second = Scripted()
    out = filter_prompts(pool[0], tmp_path / "out", second, store, samples=4)
    assert first.asked + second.asked == 4 * len(pool[1])
    assert len((out / "solved.jsonl").read_text().splitlines()) == len(pool[1])
    third = Scripted()
    filter_prompts(pool[0], tmp_path / "out", third, store, samples=4)
    assert third.asked == 0


def test_balanced_rule_fills_with_unsolved_prompts():
    problems = [problem("math", n) for n in range(40)] + [problem("science", n) for n in range(40)]
    solved = {entry.id: 0 for entry in problems}
    solved |= {f"math{n}": 1 for n in range(20)} | {"math30": 16} | {f"science{n}": 3 for n in range(5)}
    chosen = choose(problems, solved, rule="balanced", seed=3)
    assert Counter(entry.domain for entry in chosen) == {"math": 20, "science": 20}
    science = [entry for entry in chosen if entry.domain == "science"]
    assert {f"science{n}" for n in range(5)} <= {entry.id for entry in science}
    assert all(entry.prompt.endswith(SCIENCE_FORMATS) for entry in science)
    assert len({entry.prompt.split("\n\n")[1] for entry in science}) > 1
    assert all(solved[entry.id] == 1 for entry in chosen if entry.domain == "math")
    assert chosen == choose(problems, solved, rule="balanced", seed=3)


def test_refusals(tmp_path, pool):
    store = GenerationStore(tmp_path / "store")
    with pytest.raises(InputError, match="mixes are mc, mcs"):
        filter_prompts(pool[0], tmp_path / "out", Scripted(), store, mix="m")
    save_problems(tmp_path / "q.jsonl", [problem("math", 0)])
    with pytest.raises(InputError, match="no prompt passes"):
        filter_prompts(tmp_path / "q.jsonl", tmp_path / "out", Scripted(), store, samples=2)

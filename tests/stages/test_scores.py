"""What the evaluation of a chain asks and writes, for a suite as for a rehearsal."""

from pathlib import Path

import pytest

from prism_nemo.evaluation import suites
from prism_nemo.evaluation.backends.rendering import positions
from prism_nemo.evaluation.benchmark import Benchmark
from prism_nemo.evaluation.definitions import definition
from prism_nemo.evaluation.protocol import Prompting
from prism_nemo.evaluation.suites import PAPER
from prism_nemo.models.facts import BASES, CONFIGS
from prism_nemo.recipe import Evaluate, load_recipe
from prism_nemo.stages import scores
from prism_nemo.verifiers import Problem


def benchmark(name: str) -> Benchmark:
    found = definition(name)
    problems = {
        f"{name}{i}": Problem(id=f"{name}{i}", domain="math", prompt=f"{i}?", answer="1", source="s", licence="mit")
        for i in range(10)
    }
    return Benchmark(
        name=name,
        version="1",
        domain=found.domain,
        problems=problems,
        messages={key: problem.prompt for key, problem in problems.items()},
        samples=found.samples,
        sampling=found.sampling,
        held_out=found.held_out,
    )


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "load_suite", lambda text: [benchmark(name) for name in suites.PRESETS[text]])


@pytest.mark.usefixtures("suite")
def test_a_suite_keeps_its_protocol() -> None:
    found = {entry.name: entry for entry in scores.asked(Evaluate(), None)}
    assert set(found) == {*PAPER, "aime26"}
    assert (found["aime24"].samples, found["aime24"].sampling.temperature) == (64, 0.6)
    assert (found["codeforces"].samples, found["codeforces"].sampling.temperature) == (3, 0.7)
    assert {len(entry.messages) for entry in found.values()} == {10}
    assert {entry.sampling.max_new_tokens for entry in found.values()} == {32_768}
    assert {entry.sampling.max_new_tokens for entry in scores.asked(Evaluate(max_new_tokens=4096), None)} == {4096}


@pytest.mark.usefixtures("suite")
def test_a_landscape_asks_some_of_the_same_questions() -> None:
    few = scores.asked(Evaluate(samples_per_problem=4), None, at_most=3)
    kept = ["aime240", "aime243", "aime246"]
    assert (list(few[0].messages), list(few[0].problems), few[0].samples) == (kept, kept, 4)
    assert few[0].task == scores.asked(Evaluate(), None)[0].task


@pytest.mark.parametrize("family", BASES)
def test_the_longest_response_of_a_shipped_recipe_leaves_room_for_a_question(family: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((CONFIGS / f"{family}.json").read_text())
    settings = load_recipe(family).evaluate
    room = positions(tmp_path)
    assert settings.max_new_tokens == {"mistral_7b": 24_576, "mistral_small_24b": 24_576}.get(family, 32_768)
    assert room is None or settings.max_new_tokens + 8192 <= room
    assert (room is None) == (family in ("nemotron_h_8b", "granite_4_0_h_micro"))


@pytest.mark.parametrize(
    ("family", "reached"), [("mistral_7b", [8192, 32768]), ("nemotron_h_8b", [8192, 32768, 65536])]
)
def test_ruler_is_asked_as_far_as_positions_reach(
    family: str, reached: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prism_nemo.evaluation import retention
    from prism_nemo.stages.lengths import rulers

    asked = []
    limits = []

    def heard(model: Path, tasks: list, *_: object, limit: int, **__: object) -> list:
        asked.extend(tasks)
        limits.append(limit)
        return []

    monkeypatch.setattr(retention, "run_retention", heard)
    (tmp_path / "config.json").write_text((CONFIGS / f"{family}.json").read_text())
    found = rulers(tmp_path, [8192, 32768, 65536], tmp_path, "hf", print)
    assert [task.name for task in asked] == [f"ruler_{length // 1024}k" for length in reached]
    assert limits == [100], "as many samples of each task as the paper's"
    assert found["skipped"] == [length for length in (8192, 32768, 65536) if length not in reached]


def test_the_landscape_asks_as_the_evaluation_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the three checkpoints would be sampled twice, and behaviour had two rows of each."""
    from prism_nemo.analysis import landscape_output
    from prism_nemo.stages import results

    asked: dict[str, object] = {}
    monkeypatch.setattr(landscape_output, "analyse_landscape", lambda *_, **how: asked.update(how))
    monkeypatch.setattr(scores, "asked", lambda *_, **__: [])
    recipe = load_recipe("llama_3_1_8b").with_(analyze={"landscape_problems": 5}, evaluate={"seed": 7, "backend": "hf"})
    results.landscape_stage(recipe, tmp_path, {}).run(tmp_path / "out", lambda *_: None)
    assert (asked["seed"], asked["backend"], asked["k"]) == (7, "hf", recipe.analyze.landscape_samples)
    assert asked["prompting"] == Prompting(mode="raw")
    assert not asked.get("sampling")


def test_progress_only_goes_forward() -> None:
    told: list[float] = []
    show = scores.part_of(lambda done, total, text="": told.append(done), 1, "mt", 4, 4)
    for what in ("a: sampling", "b: sampling", "a: scoring", "b: scoring"):
        for done in range(3):
            show(what, done, 2)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (1, 2)

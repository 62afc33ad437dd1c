"""Verdicts follow from figures: planted effects of either sign, none, and none measured."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.suites import PAPER
from prism_nemo.report.blocks import Table
from prism_nemo.report.card import model_card
from prism_nemo.report.claims import Claim, claims
from prism_nemo.report.differences import context_difference, score_difference, score_of
from prism_nemo.report.long_context import long_context
from prism_nemo.report.outcome import four_arms, outcome, protocol_line
from prism_nemo.report.paper import beside_paper, paper_ruler, paper_scores
from prism_nemo.report.run import Run, label, read_run
from prism_nemo.stages.scores import panels


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    return read_run(run_folder)


def verdict(run: Run, start: str) -> Claim:
    return next(claim for claim in claims(run) if claim.claim.startswith(start))


def with_difference(run: Run, start: str, end: str, domain: str, value: float, half: float) -> Run:
    entry = {"from": start, "to": end, "domain": domain, "difference": value, "paired": True}
    entry |= {"low": value - half, "high": value + half}
    return dataclasses.replace(run, scores={**(run.scores or {}), "differences": [entry]})


@pytest.mark.parametrize(
    ("value", "half", "expected"), [(0.1, 0.05, "shows"), (-0.1, 0.05, "opposite"), (0.1, 0.11, "not clear")]
)
def test_a_sampled_claim_needs_its_whole_interval(run: Run, value: float, half: float, expected: str) -> None:
    planted = with_difference(run, "base", "mt", "math", value, half)
    assert verdict(planted, "Mid-training lifts math").verdict == expected


def test_a_difference_written_the_other_way_round_is_turned(run: Run) -> None:
    planted = with_difference(run, "mt", "base", "math", 0.2, 0.05)
    found = score_difference(planted.scores, "base", "mt", "math")
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((-0.2, -0.25, -0.15))


def test_without_pairs_the_outer_bounds_of_both_intervals_count(run: Run) -> None:
    bare = dataclasses.replace(run, scores={**(run.scores or {}), "differences": []})
    found = score_difference(bare.scores, "base", "mt", "code")
    base, mt = (bare.scores["arms"][arm]["domains"]["code"] for arm in ("base", "mt"))  # type: ignore[index]
    assert found is not None
    assert not found.paired
    assert (found.low, found.high) == (mt["low"] - base["high"], mt["high"] - base["low"])


@pytest.mark.parametrize(("rise", "expected"), [(0.3, "opposite"), (-0.3, "shows"), (0.001, "not clear")])
def test_a_rise_of_the_general_loss_is_a_real_loss(run: Run, rise: float, expected: str) -> None:
    def entry(loss: float) -> dict[str, Any]:
        return {"loss": loss, "low": loss - 0.01, "high": loss + 0.01, "tokens": 9, "unit": "nats per token"}

    scores = {**(run.scores or {}), "retention": {"base": entry(2.0), "mt": entry(2.0 + rise)}, "differences": []}
    assert verdict(dataclasses.replace(run, scores=scores), "Mid-training keeps general").verdict == expected


def test_weights_and_geometry_are_read_off_the_analyses(run: Run) -> None:
    weights = run.analyses["weights"]
    total = next(row for row in weights["changes"] if row["scope"] == "total" and row["transition"] == "base -> mt")
    claim = verdict(run, "Mid-training changes nearly all weights")
    assert claim.ours == f"{100 * (1 - total['unchanged']['1']):.1f} %"
    assert claim.verdict == "shows"

    lazy = dict(
        weights, changes=[dict(row, unchanged=dict(row["unchanged"], **{"1": 0.5})) for row in weights["changes"]]
    )
    planted = dataclasses.replace(run, analyses={**run.analyses, "weights": lazy})
    assert verdict(planted, "Mid-training changes nearly all weights").verdict == "opposite"
    assert verdict(planted, "RL changes fewer weights").verdict == "opposite"


def test_swapped_cka_curves_turn_both_verdicts(run: Run) -> None:
    report = run.analyses["cka"]
    swap = {("base", "mt"): ["mt", "rl"], ("mt", "rl"): ["base", "mt"], ("base", "rl"): ["base", "rl"]}
    comparisons = [dict(entry, pair=swap[tuple(entry["pair"])]) for entry in report["comparisons"]]
    planted = dataclasses.replace(run, analyses={**run.analyses, "cka": dict(report, comparisons=comparisons)})
    for start in ("RL keeps the geometry", "Mid-training changes it more"):
        assert verdict(run, start).verdict == "shows"
        assert verdict(planted, start).verdict == "opposite"


def test_nothing_measured_is_said_of_every_claim(run: Run) -> None:
    empty = dataclasses.replace(run, scores=None, analyses={})
    assert {claim.verdict for claim in claims(empty)} == {"not measured"}


COSTS, BACK = "Mid-training at the short length costs", "Merge and long-context training give it back"


def with_context(run: Run, points: dict[str, Any], **more: Any) -> Run:
    report = {**run.analyses["long_context"], "points": points, **more}
    return dataclasses.replace(run, analyses={**run.analyses, "long_context": report})


def test_the_cost_of_a_short_length_is_paired_by_document(run: Run) -> None:
    points = run.analyses["long_context"]["points"]
    slopes = {name: np.subtract(found["documents"][-1], found["documents"][0]) for name, found in points.items()}
    found = context_difference(run.analyses["long_context"], "base", "mt")
    assert found is not None
    assert found.paired
    assert found.value == pytest.approx(np.mean(slopes["mt"] - slopes["base"]))
    assert (verdict(run, COSTS).verdict, verdict(run, BACK).verdict) == ("shows", "shows")
    back = np.mean(slopes["mt"] - slopes["long_context"]) / found.value
    assert f"{100 * back:.0f} % of what it cost" in verdict(run, BACK).ours


def test_swapped_points_turn_both_long_context_verdicts(run: Run) -> None:
    points = run.analyses["long_context"]["points"]
    planted = with_context(run, {**points, "mt": points["base"], "base": points["mt"], "long_context": points["mt"]})
    assert (verdict(planted, COSTS).verdict, verdict(planted, BACK).verdict) == ("opposite", "opposite")


def test_without_documents_the_long_context_interval_is_careful(run: Run) -> None:
    points = run.analyses["long_context"]["points"]
    bare = {name: {key: found[key] for key in found if key != "documents"} for name, found in points.items()}
    paired, careful = (
        context_difference({"points": each}, "base", "mt") for each in (run.analyses["long_context"]["points"], bare)
    )
    assert paired is not None
    assert careful is not None
    assert careful.value == pytest.approx(paired.value)
    assert careful.low < paired.low < paired.high < careful.high
    assert verdict(with_context(run, bare), COSTS).verdict == "not clear"


def test_ruler_counts_upwards_and_stands_beside_the_papers(run: Run) -> None:
    means = {"base": 0.59, "mt": 0.07, "merge": 0.11, "long_context": 0.42}
    points = {
        name: {"ruler": [{"value": 0.9, "low": 0.88, "high": 0.92}, {"value": v, "low": v - 0.02, "high": v + 0.02}]}
        for name, v in means.items()
    }
    recipe = {**run.recipe, "model": {"family": "granite_3_3_8b", "base": "org/base", "pico": None}}
    planted = dataclasses.replace(with_context(run, points, lengths=[8192, 131072]), recipe=recipe)
    assert verdict(planted, COSTS).verdict == verdict(planted, BACK).verdict == "shows"
    assert "67 % of what it cost" in verdict(planted, BACK).ours
    table = next(block for block in long_context(planted, "x") if isinstance(block, Table))
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.cells}
    assert rows["merge + LC"] == ["90.0 [88.0, 92.0]", "42.0 [40.0, 44.0]"]
    assert rows["merge + LC, paper"] == ["89.83", "42.16"]
    assert rows["MT, paper"] == ["89.02", "6.46"]


def test_the_papers_scores_are_those_of_its_tables() -> None:
    assert paper_scores("granite_3_3_8b", "base", "math_code_science")["math500"] == 26.09
    assert paper_scores("granite_3_3_8b", "mt", "math_code_science")["gpqa_diamond"] == 29.12
    assert paper_scores("granite_3_3_8b", "mt", "math_code")["gpqa_diamond"] == 19.02
    assert paper_scores("llama_3_1_8b", "rl", "math_code_science")["livecodebench_v5"] == 14.34
    assert paper_scores("nemotron_h_8b", "rl", "math") == {}
    assert paper_scores("llama_3_1_8b", "rl_base", "math_code_science") == {}
    assert paper_ruler("llama_3_1_8b", "mt", [8192]) == []


@pytest.fixture
def full_size(run: Run, suite_scores: dict[str, Any]) -> Run:
    """A run of the paper's suite on one of its models, with the scores as the stages write them."""
    model = {"family": "granite_3_3_8b", "base": "org/base", "pico": None}
    recipe = {**run.recipe, "model": model, "data": {"mixture": "math_code_science"}}
    scores = {**suite_scores, "retention": {}, "differences": [*_without_losses(suite_scores)]}
    analyses = {**run.analyses, "retention": {"tasks": _leaderboards()}}
    return dataclasses.replace(run, scores=scores, recipe=recipe, analyses=analyses)


def _without_losses(scores: dict[str, Any]) -> Iterator[Any]:
    return (row for row in scores["differences"] if row["domain"] != "retention")


def _leaderboards() -> list[dict[str, Any]]:
    """HellaSwag lost, GSM8K won; in the records of the retention stage."""
    from prism_nemo.evaluation.leaderboards import LB_V1
    from prism_nemo.evaluation.retention import TaskScores, retained

    random = np.random.default_rng(0)
    luck = {task.name: random.random(400) for task in LB_V1}
    found = [
        [
            TaskScores(
                name=name,
                model="m",
                documents={"p": {str(i): float(draw < 0.6 + lift.get(name, 0)) for i, draw in enumerate(draws)}},
                by_part=False,
                harness_version="1",
            )
            for name, draws in luck.items()
        ]
        for lift in ({}, {"hellaswag": -0.2, "gsm8k": 0.3})
    ]
    return [{"arm": "mt", "lost": row.lost, **dataclasses.asdict(row)} for row in retained(*found)]


def test_a_real_runs_retention_is_shown_task_by_task(full_size: Run) -> None:
    section = next(section for section in outcome(full_size, "x") if section.short == "Retention")
    (table,) = section.blocks
    assert isinstance(table, Table)
    cells = {row[0].text: [cell.text for cell in row] for row in table.cells}
    assert "LOST" in cells["hellaswag"][3]
    assert all("LOST" not in row[3] for name, row in cells.items() if name != "hellaswag")
    assert cells["hellaswag"][4] == "83.46 to 78.12"
    claim = verdict(full_size, "Mid-training keeps general ability")
    assert "real losses: hellaswag" in claim.ours
    assert claim.verdict in ("shows", "not clear")
    card = model_card(full_size, "mt")
    assert cells["hellaswag"][3] in card
    assert "What it forgot" not in card
    assert "What it forgot" in model_card(full_size, "rl")


def test_a_real_run_stands_beside_the_paper(full_size: Run) -> None:
    (table,) = beside_paper(full_size)
    assert isinstance(table, Table)
    rows = {(row[0].text, row[1].text): row[3].text for row in table.cells}
    assert {benchmark for arm, benchmark in rows if arm == "MT"} == {*PAPER, "avg3", "avg6"}
    assert rows["MT", "math500"] == "81.11"
    assert rows["MT", "gpqa_diamond"] == "29.12"
    assert ("base + RL", "math500") not in rows
    for arm in ("base", "mt", "rl"):
        for row in (row for row in table.cells if row[0].text == label(arm)):
            ours = score_of((full_size.scores or {})["arms"][arm], row[1].text)
            assert ours is not None
            inside = 100 * ours["low"] <= float(row[3].text) <= 100 * ours["high"]
            higher = float(row[3].text) > 100 * ours["avg"]
            assert row[4].text == ("within" if inside else "▲ above" if higher else "▼ below")
    assert {row[4].text for row in table.cells} == {"within", "▲ above", "▼ below"}


def test_the_claims_of_a_real_run_are_measured(full_size: Run) -> None:
    found = {claim.claim: claim for claim in claims(full_size)}
    for name in ("Mid-training lifts math", "Mid-training lifts code", "Mid-training with science data lifts science"):
        assert found[name].verdict == "shows"
    assert found["RL lifts the mid-trained model further"].verdict == "shows"
    assert found["Responses grow longer with mid-training"].verdict == "shows"


def test_a_real_run_shows_both_averages_and_how_each_benchmark_was_asked(full_size: Run) -> None:
    arms = (full_size.scores or {})["arms"]
    four = four_arms(full_size)
    assert four.columns[1:6] == ["math", "code", "science", "avg3", "avg6"]
    value = {name: entry["avg"] for name, entry in arms["mt"]["benchmarks"].items()}
    math_ = (value["aime24"] + value["aime25"] + value["math500"]) / 3
    code = (value["livecodebench_v5"] + value["codeforces"]) / 2
    assert arms["mt"]["avg3"]["avg"] == arms["mt"]["mean"]["avg"]
    assert arms["mt"]["avg3"]["avg"] == pytest.approx((math_ + code + value["gpqa_diamond"]) / 3)
    assert arms["mt"]["avg6"]["avg"] == pytest.approx(sum(value[name] for name in PAPER) / 6)
    assert arms["mt"]["domains"]["math"]["avg"] == pytest.approx(math_)
    line = protocol_line(full_size)
    assert "aime24, aime25, math500, aime26: avg@8, temperature 0.6, at most 32,768 tokens" in line
    assert "livecodebench_v5, codeforces, gpqa_diamond: avg@8, temperature 0.7" in line
    assert "avg@0" not in line
    titles = [block.title for block in outcome(full_size, "x")[0].blocks if isinstance(block, Table)]
    assert "Each benchmark: percent of samples that are right" in titles


def test_a_rehearsal_without_science_means_over_what_it_has(make_score: Callable[..., Score]) -> None:
    own = [make_score("mt", f"held_out_{domain}", domain, np.array([0.5, 1.0]), 2) for domain in ("math", "code")]
    assert panels(own)["mean"] == {"held_out_math": 0.5, "held_out_code": 0.5}
    suite = [
        make_score("mt", name, domain, np.array([0.5, 1.0]), 2)
        for name, domain in (("aime24", "math"), ("codeforces", "code"))
    ]
    assert set(panels(suite)) == {"math", "code"}

"""Comparisons, averages, chosen steps, the paper's numbers, and the four renderings."""

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest

from prism_nemo.errors import InputError
from prism_nemo.evaluation.averages import average, average_weights, combine
from prism_nemo.evaluation.compare import choose_steps, compare
from prism_nemo.evaluation.formats import FORMATS, to_terminal
from prism_nemo.evaluation.paper import paper_scores, records
from prism_nemo.evaluation.protocol import Prompting, Protocol, Sampling
from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.statistics import score_interval
from prism_nemo.evaluation.suites import PAPER
from prism_nemo.evaluation.tables import comparison_table, paper_table, score_table, steps_table

DOMAIN = dict(zip(PAPER, ["math", "math", "math", "code", "code", "science"], strict=True))


def score(name, benchmark, shares, **changes):
    fields = {
        "model": name,
        "name": name,
        "benchmark": benchmark,
        "task": f"{benchmark}@1",
        "domain": DOMAIN.get(benchmark, "math"),
        "protocol": "p",
        "asked": Protocol(sampling=Sampling(), prompting=Prompting()),
        "held_out": benchmark == "aime26",
        "questions": len(shares),
        "k": 4,
        "samples": 4 * len(shares),
        "avg": score_interval(shares),
        "pass_at": {2: 0.5},
        "majority": math.nan,
        "backends": ("test",),
        "question_scores": {f"q{i}": float(share) for i, share in enumerate(shares)},
    }
    zeros = ["median_tokens", "mean_tokens", "truncated", "no_answer", "errors", "timeouts", "think_format", "nll"]
    fields |= dict.fromkeys([*zeros, "nll_correct", "nll_incorrect"], 0.25)
    return Score(**(fields | changes))


def panel(name, seed, lift=0.0, names=PAPER):
    rng = np.random.default_rng(seed)
    noise = np.random.default_rng(99)
    return [
        score(name, benchmark, np.clip(rng.random(40) * 0.6 + lift + noise.normal(0, 0.02, 40), 0, 1))
        for benchmark in names
    ]


def test_both_averages_are_what_the_paper_means():
    scores = panel("a", 0)
    value = {s.benchmark: s.avg.value for s in scores}
    cells = compare({"a": scores}).rows
    code = (value["livecodebench_v5"] + value["codeforces"]) / 2
    math_ = (value["aime24"] + value["aime25"] + value["math500"]) / 3
    assert cells["avg3"]["a"].score.value == pytest.approx((code + math_ + value["gpqa_diamond"]) / 3)
    assert cells["avg6"]["a"].score.value == pytest.approx(sum(value.values()) / 6)
    assert cells["avg3"]["a"].score.low < cells["avg3"]["a"].score.value < cells["avg3"]["a"].score.high


def test_an_average_of_questions_that_all_agree_is_not_certain():
    none, some = ([score("a", benchmark, [share] * 30) for benchmark in PAPER] for share in (0.0, 0.5))
    cells = compare({"none": none, "some": some}).rows
    found = cells["avg3"]["none"].score
    assert (found.value, found.low) == (0, 0)
    assert 0.01 < found.high < 0.11  # Wilson's bound of one benchmark
    difference = cells["avg6"]["some"].difference
    assert difference.low < 0.5 < difference.high
    assert score_interval([0.0] * 30).high == pytest.approx(combine({"x": [0.0] * 30}, {"x": 1}, lowest=0).high)


@pytest.mark.parametrize("right", [0, 2, 9, 15, 21, 28, 29, 30])
def test_an_average_of_one_benchmark_is_its_score(right):
    one = score("a", "aime24", [1.0] * right + [0.0] * (30 - right))
    found, expected = average([one], {"aime24": 1.0}), score_interval(list(one.question_scores.values()))
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=0.01), pytest.approx(expected.high, abs=0.01))


def test_an_average_without_its_panel_does_not_exist():
    assert set(average_weights(panel("a", 0, names=PAPER[:5]))) == set()
    assert set(average_weights([*panel("a", 0), score("a", "aime26", [0.5] * 4)])) == {"avg3", "avg6"}
    three = [score("a", f"held_out_{d}", [0.5, 0.1], domain=d) for d in ("math", "code", "science")]
    assert set(average_weights(three)) == {"avg3"}


def test_differences_are_paired_and_significant_where_they_are():
    base, better = panel("base", 1), panel("better", 1, lift=0.05)
    found = compare({"base": base, "better": better, "same": panel("same", 1)})
    cell = found.rows["aime24"]["better"]
    assert cell.difference.value == pytest.approx(better[0].avg.value - base[0].avg.value)
    assert cell.significant
    assert cell.difference.high - cell.difference.low < 0.5 * (cell.score.high - cell.score.low)
    assert found.rows["avg3"]["better"].significant
    assert not found.rows["aime24"]["same"].significant
    assert found.rows["aime24"]["base"].difference is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 8}, "k=4 of aime24@1, b k=8"),
        (
            {"asked": Protocol(sampling=Sampling(temperature=0.6), prompting=Prompting())},
            "temperature 1, .* b with temperature 0.6, .* only equal protocols",
        ),
        ({"task": "aime24@2"}, "aime24@2"),
        ({"question_scores": {"q0": 1.0}}, "samples of different questions"),
    ],
)
def test_unequal_protocols_are_not_compared(change, message):
    with pytest.raises(InputError, match=message):
        compare({"a": [score("a", "aime24", [0, 1])], "b": [score("b", "aime24", [0, 1], **change)]})


def test_other_benchmarks_and_two_protocols_are_refused():
    one, other = score("a", "aime24", [0, 1]), score("b", "aime25", [0, 1])
    with pytest.raises(InputError, match="aime24, aime25 is missing"):
        compare({"a": [one], "b": [other]})
    with pytest.raises(InputError, match="two scores of aime24"):
        compare({"a": [one, one]})
    with pytest.raises(InputError, match="no scores of b"):
        compare({"a": [one], "b": []})


def test_steps_are_labelled():
    up = [0.2, 0.3, 0.4]
    steps = {
        20 * (i + 1): [score("m", "aime24", [up[i]] * 4), score("m", "gpqa_diamond", [0.9 - up[i]] * 4)]
        for i in range(3)
    }
    chosen = choose_steps(steps, by="gpqa_diamond")
    assert chosen["final step"]["aime24"] == (60, pytest.approx(0.4))
    assert chosen["one joint best step (by gpqa_diamond)"]["aime24"] == (20, pytest.approx(0.2))
    assert chosen["per-benchmark maximum"]["gpqa_diamond"] == (20, pytest.approx(0.7))
    assert chosen["per-benchmark maximum"]["aime24"][0] == 60
    with pytest.raises(InputError, match="avg3 is not defined"):
        choose_steps(steps)
    assert "per-benchmark maximum" in FORMATS["markdown"]([steps_table(chosen)])
    assert "yet of step 40" in FORMATS["markdown"]([steps_table(chosen, ["40"])])


def test_steps_asked_differently_are_refused():
    one, other = score("m", "aime24", [0.5] * 4), score("m", "aime24", [0.9] * 4, protocol="q", seed=1)
    with pytest.raises(InputError, match=r"step 40 has two scores of aime24: protocol p, seed 0 .* protocol q, seed 1"):
        choose_steps({20: [one], 40: [one, other]}, by="aime24")
    with pytest.raises(InputError, match="step 20 has k=4 of aime24@1, step 40 k=8"):
        choose_steps({20: [one], 40: [score("m", "aime24", [0.9] * 4, k=8)]}, by="aime24")
    with pytest.raises(InputError, match="no scores of step 40"):
        choose_steps({20: [one], 40: []}, by="aime24")


def test_the_papers_numbers():
    assert len(records()) == 1010
    mid = paper_scores("granite_3_3_8b", "mt")
    assert (mid["livecodebench_v5"].value, mid["codeforces"].value, mid["gpqa_diamond"].value) == (10.63, 10.52, 29.12)
    assert mid["avg3"].value == pytest.approx(29.48, abs=0.01)  # printed in Table 11
    assert "derived" in mid["avg3"].note
    rl = paper_scores("llama-3.1-8b", "mt_rl", "mcs>mcs")
    assert (rl["avg3"].value, rl["avg3"].table) == (29.69, "Table 11")
    assert paper_scores("granite-3.3-8b", "merge_lc_full", "mc")["ruler_128k"].value == 42.16
    with pytest.raises(InputError, match="Table 11 has no row nemotron-h-8b"):
        paper_scores("nemotron-h-8b", "mt_rl", "mcs>mcs")


class _Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.texts = []

    def handle_data(self, data):
        self.texts.append(data)


def test_four_renderings_say_the_same():
    found = compare({"base|1": panel("base|1", 1), "<b>better": panel("<b>better", 1, lift=0.05)})
    table = comparison_table(found)
    value = f"{found.rows['avg6']['<b>better'].score.value * 100:.2f}"
    texts = {name: write([table]) for name, write in FORMATS.items()}
    assert value in texts["terminal"].replace("\n", "")
    assert value in texts["markdown"]
    assert "base\\|1" in texts["markdown"]
    assert "<b>" not in texts["html"]
    cells = _Cells()
    cells.feed(texts["html"])
    assert any(text.startswith(value) for text in cells.texts)
    parsed = json.loads(texts["json"])["records"]
    assert f"{parsed['rows']['avg6']['<b>better']['score']['value'] * 100:.2f}" == value
    assert "NaN" not in FORMATS["json"]([score_table(panel("a", 1))])
    assert "plain mean of aime24" in texts["markdown"]


def test_a_terminal_gets_the_columns_it_has_room_for():
    """What does not fit follows below, each block with the row's keys; no cell is broken."""
    table = score_table(panel("granite-4.0-h-micro", 1))
    for width in (64, 80, 120):
        text = to_terminal([table], width)
        drawn = text.split("Brackets:")[0].splitlines()
        assert max(map(len, drawn)) <= width
        assert sum("granite-4.0-h-micro   livecodebench_v5" in line for line in drawn) > 1
        assert all(any(cell in line for line in drawn) for row in table.rows for cell in row)
    assert sum("livecodebench_v5" in line for line in to_terminal([table], 300).splitlines()) == 1


def test_several_tables_are_one_document():
    tables = [score_table(panel("a", 1)), comparison_table(compare({"a": panel("a", 1)}))]
    assert [found["title"] for found in json.loads(FORMATS["json"](tables))] == ["Scores", "Compared with a"]
    page = FORMATS["html"](tables)
    assert page.startswith("<!doctype html>")
    assert (page.count("<html"), page.count("<table>"), page.count("charset")) == (1, 2, 1)


def test_against_the_paper():
    shares = np.clip(np.random.default_rng(0).normal(0.37, 0.2, 30), 0, 1)
    ours = compare({"mt": [score("mt", "aime24", shares), score("mt", "aime26", shares)]})
    table = paper_table(ours, {"mt": paper_scores("granite-3.3-8b", "mt")})
    (row,) = table.rows
    assert row[:2] == ("mt", "aime24")
    assert row[3] == "37.18"
    assert float(row[4]) == pytest.approx(shares.mean() * 100 - 37.18, abs=0.006)
    assert row[5] == "yes"


def test_incomplete_scores_say_so():
    part = score("a", "aime24", [0, 1], samples=3)
    assert "(3/8)" in FORMATS["markdown"]([score_table([part])])
    assert "not all samples are there" in FORMATS["markdown"]([comparison_table(compare({"a": [part]}))])

"""Length and confidence from judged samples, with intervals over questions."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from prism_nemo.analysis.behaviour import BehaviourReport, _means, _medians, behave, measure_behaviour
from prism_nemo.analysis.behaviour_output import analyse_behaviour, behaviour_output
from prism_nemo.analysis.output import write
from prism_nemo.errors import InputError
from prism_nemo.evaluation.benchmark import Benchmark, file_benchmarks
from prism_nemo.evaluation.identity import model_facts
from prism_nemo.evaluation.protocol import Prompting, Protocol, Sampling
from prism_nemo.evaluation.sample import Sample, prompt_hash
from prism_nemo.evaluation.scoring import Judged
from prism_nemo.evaluation.store import GenerationStore
from prism_nemo.verifiers import Verdict


def judged(question: int, right: bool, tokens: int, nll: float, finish: str = "stop", index: int = 0) -> Judged:
    key = {"model": "m", "task": "t@1", "question": str(question), "prompt": "p", "protocol": "x", "seed": 0}
    rest = {"text": "", "tokens": tokens, "finish": finish, "nll": nll, "seconds": 0.0, "backend": "none"}
    return Judged(sample=Sample(index=index, **key, **rest), verdict=verdict(right))


def verdict(right: bool) -> Verdict:
    return Verdict(outcome="correct" if right else "wrong")


def test_right_and_wrong_answers_are_told_apart():
    found = behave([judged(0, True, 10, 0.1), judged(0, False, 30, 0.5), judged(1, True, 20, 0.3, "length")])
    assert found.pass_rate.value == pytest.approx(2 / 3)
    assert found.median_length.value == 20
    assert found.nll.value == pytest.approx(0.3)
    assert found.nll_correct.value == pytest.approx(0.2)
    assert found.nll_incorrect.value == pytest.approx(0.5)
    assert found.truncated == pytest.approx(1 / 3)
    assert (found.questions, found.samples) == (2, 3)


def test_what_cannot_be_averaged_is_none():
    found = behave([judged(0, False, 10, math.nan), judged(1, False, 10, 0.4)])
    assert found.nll_correct.value is None
    assert found.nll_unknown == 1
    assert found.nll.value == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no samples"):
        behave([])


def test_a_token_of_probability_0_is_counted_and_not_averaged(tmp_path):
    found = behave([judged(0, True, 10, math.inf), judged(1, True, 10, 0.4)], name="m", benchmark="b")
    assert found.nll_unknown == 1
    assert found.nll.value == pytest.approx(0.4)
    write(tmp_path, behaviour_output(BehaviourReport(rows=[found])))
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["nll_unknown"] == 1


def test_answers_to_one_question_have_no_interval():
    """However many other questions there are: resampling would draw the same answers each time."""
    wrong = [judged(q, False, 10, 0.5) for q in range(1, 9)]
    found = behave([judged(0, True, 10, 0.1), judged(0, True, 12, 0.3, index=1), *wrong])
    assert (found.nll_correct.value, found.nll_correct.low, found.nll_correct.high) == (pytest.approx(0.2), None, None)
    assert found.nll_incorrect.low == found.nll_incorrect.high == pytest.approx(0.5)


def test_the_interval_resamples_questions_and_not_samples():
    """Eight equal samples per question say no more than one: the interval must not shrink."""
    rights = np.random.default_rng(0).random(40) < 0.5
    once = behave([judged(q, bool(right), 10, 0.1) for q, right in enumerate(rights)]).pass_rate
    often = behave([judged(q, bool(right), 10, 0.1, index=i) for q, right in enumerate(rights) for i in range(8)])
    assert often.pass_rate.low == pytest.approx(once.low)
    assert often.pass_rate.high == pytest.approx(once.high)
    share = rights.mean()
    expected = 1.96 * math.sqrt(share * (1 - share) / 40)
    assert once.high - once.low == pytest.approx(2 * expected, rel=0.15)


def test_resampled_medians_are_those_of_the_drawn_samples():
    random = np.random.default_rng(1)
    question, values = random.integers(0, 7, 40), random.integers(0, 30, 40).astype(float)
    draws = random.integers(0, 7, (50, 7))
    expected = [np.median(np.concatenate([values[question == q] for q in draw])) for draw in draws]
    assert _medians(values, question, draws) == pytest.approx(expected)
    expected = [np.mean(np.concatenate([values[question == q] for q in draw])) for draw in draws]
    assert _means(values, question, draws) == pytest.approx(expected)


def test_tables_figure_and_the_papers_row(tmp_path):
    rows = [
        behave([judged(q, q % 2 == 0, 10 + q, 0.1 * (q + 1)) for q in range(6)], name=name, benchmark="math500")
        for name in ("base", "mt", "rl")
    ]
    write(tmp_path, behaviour_output(BehaviourReport(rows=rows), paper="granite-3.3-8b"))
    text = (tmp_path / "tables" / "paper.csv").read_text()
    assert '"Table 15","mt_rl","mcs>mcs","pass_rate_math500_200",79.5,50' in text
    assert (tmp_path / "figures" / "behaviour.png").stat().st_size > 5000


def test_the_papers_row_stands_beside_its_own_benchmark_only():
    right = {"aime24": 0, "math500": 4}
    rows = [
        behave([judged(q, q < right[benchmark], 10, 0.1) for q in range(6)], name="mt", benchmark=benchmark)
        for benchmark in right
    ]
    beside = behaviour_output(BehaviourReport(rows=rows), paper="granite-3.3-8b").paper
    (row,) = (row for row in beside if row["benchmark"] == "pass_rate_math500_200")
    assert row["ours"] == pytest.approx(100 * 4 / 6)
    for without in (rows[:1], [*rows, rows[1]]):  # none of it; two protocols
        found = behaviour_output(BehaviourReport(rows=without), paper="granite-3.3-8b")
        assert not found.paper
        assert "the paper's table is of MATH500" in found.notes[-1]


def sampled(folder: Path, name: str, count: int, k: int = 1) -> Path:
    """A model folder and its samples of `count` questions in a store, none of them right."""
    model = folder / name
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "tokenizer.json").write_text(f'"{name}"')
    (model / "model.safetensors").write_bytes(name.encode())
    facts = model_facts(model)
    protocol = Protocol(sampling=Sampling(), prompting=Prompting())
    keys = {"model": facts["fingerprint"], "protocol": protocol.fingerprint, "seed": 0, "task": "sums_math@file"}
    rest = {"text": "nothing", "tokens": 4, "finish": "stop", "nll": 0.5, "seconds": 0.0, "backend": "none"}
    with GenerationStore(folder / "store") as store:
        store.describe("models", facts["fingerprint"], facts)
        store.describe("protocols", protocol.fingerprint, protocol.facts())
        store.append(
            Sample(question=f"q{q}", prompt=prompt_hash(f"{q}+1="), index=i, **keys, **rest)
            for q in range(count)
            for i in range(k)
        )
    return model


def sums(folder: Path, samples: int) -> list[Benchmark]:
    """Four questions."""
    problem = {"domain": "math", "source": "test", "licence": "CC0-1.0"}
    rows = [{"id": f"q{q}", "prompt": f"{q}+1=", "answer": str(q + 1), **problem} for q in range(4)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file_benchmarks(folder / "sums.jsonl", samples=samples)


def test_only_the_models_asked_for_by_their_names(tmp_path):
    asked = sums(tmp_path, samples=2)
    base, other = sampled(tmp_path, "a", 4, k=2), sampled(tmp_path, "b", 3, k=2)
    stores = [tmp_path / "store"]
    found = measure_behaviour(stores, asked, models={"mt": other, "base": base})
    assert [(row.name, row.questions, row.samples) for row in found.rows] == [("mt", 3, 6), ("base", 4, 8)]
    assert found.notes == ["mt on sums_math: 6 of 4 x 2 samples are in the store, of 3 questions"]
    assert [row.name for row in measure_behaviour(stores, asked).rows] == ["a", "b"]
    (tmp_path / "c").mkdir()
    unknown = sampled(tmp_path / "c", "c", 1)
    with pytest.raises(InputError, match="no samples of rl for sums_math@file"):
        measure_behaviour(stores, asked, models={"base": base, "rl": unknown})


def test_samples_that_joined_meanwhile_make_it_another_result(tmp_path):
    """But not those of other models, nor those beyond k."""
    asked, store = sums(tmp_path, samples=1), [tmp_path / "store"]
    models = {"base": sampled(tmp_path, "a", 2)}
    half = analyse_behaviour(tmp_path / "out", store, asked, models=models)
    sampled(tmp_path, "b", 4)
    sampled(tmp_path, "a", 2, k=2)
    assert analyse_behaviour(tmp_path / "out", store, asked, models=models) == half
    sampled(tmp_path, "a", 4)
    with pytest.raises(InputError, match=r"out was made differently: samples: .* --force"):
        analyse_behaviour(tmp_path / "out", store, asked, models=models)
    whole = analyse_behaviour(tmp_path / "out", store, asked, models=models, force=True)
    assert [entry["rows"][0]["samples"] for entry in (half, whole)] == [2, 4]

"""Judging and scoring against verdicts one by one and numbers counted by hand."""

import dataclasses
import math

import pytest

from prism_nemo.evaluation import scoring
from prism_nemo.evaluation.benchmark import Benchmark
from prism_nemo.evaluation.protocol import Sampling
from prism_nemo.evaluation.sample import Sample, prompt_hash
from prism_nemo.evaluation.scoring import as_record, judge, samples_of, score
from prism_nemo.verifiers import CallTest, Problem, Verdict, verify

TEXTS = {
    "half": ["<think>a</think>\\boxed{0.5}", "\\boxed{\\frac{1}{2}}", "\\boxed{2}", "<think>b</think>\\boxed{2}"],
    "seven": ["The answer is 7.", "I do not know what to say about this.\n" + "x" * 300, "\\boxed{8}", "\\boxed{9}"],
}


def benchmark(domain="math"):
    keys = {"half": "\\frac{1}{2}", "seven": "7"} if domain == "math" else {"half": "B", "seven": "C"}
    problems = {
        name: Problem(id=name, domain=domain, prompt=f"{name}?", answer=key, source="t", licence="mit")
        for name, key in keys.items()
    }
    return Benchmark(
        name="b",
        version="1",
        domain=domain,
        problems=problems,
        messages={name: problem.prompt for name, problem in problems.items()},
        samples=4,
        sampling=Sampling(),
    )


def samples(texts=TEXTS, **changes):
    return [
        Sample(
            **{
                "model": "m",
                "task": "b@1",
                "question": question,
                "prompt": prompt_hash(f"{question}?"),
                "protocol": "p",
                "seed": 0,
                "index": index,
                "text": text,
                "tokens": 10 * (index + 1),
                "finish": "length" if index == 3 else "stop",
                "nll": 0.1 * (index + 1),
                "seconds": 1.0,
                "backend": "test",
            }
            | changes
        )
        for question, answers in texts.items()
        for index, text in enumerate(answers)
    ]


def test_shared_verdicts_are_the_verdicts_of_each():
    asked = benchmark()
    for entry in judge(asked, samples()):
        alone = verify(asked.problems[entry.sample.question], entry.sample.text)
        assert (entry.verdict.outcome, entry.verdict.think_format) == (alone.outcome, alone.think_format)


def test_a_verdict_is_asked_for_once_in_a_process(monkeypatch):
    problem = Problem(id="q", domain="science", prompt="once?", answer="B", source="t", licence="mit")
    asked = dataclasses.replace(benchmark("science"), problems={"q": problem}, messages={"q": "once?"})
    first = judge(asked, samples({"q": ["The answer is B", "The answer is C"]}))
    monkeypatch.setattr("prism_nemo.evaluation.scoring.verify_many", lambda *_, **__: pytest.fail("asked again"))
    assert [entry.verdict for entry in judge(asked, samples({"q": ["The answer is B", "The answer is C"]}))] == [
        entry.verdict for entry in first
    ]
    other = dataclasses.replace(asked, problems={"q": dataclasses.replace(problem, answer="C")})
    with pytest.raises(pytest.fail.Exception):
        judge(other, samples({"q": ["The answer is B"]}))


@pytest.mark.parametrize(("outcome", "kept", "asked"), [("wrong", 4, 1), ("timeout", 4, 2), ("wrong", 0, 2)])
def test_kept_verdicts_are_few_and_none_that_time_may_change(monkeypatch, outcome, kept, asked):
    calls = []

    def verdicts(problems, completions, **_):
        calls.append(len(problems))
        return [Verdict(outcome=outcome) for _ in problems]

    monkeypatch.setattr(scoring, "_known", {})
    monkeypatch.setattr(scoring, "KEPT", kept)
    monkeypatch.setattr(scoring, "verify_many", verdicts)
    for _ in range(2):
        judge(benchmark("science"), samples({"half": ["The answer is B"]}))
    assert len(calls) == asked


def test_a_score_counted_by_hand():
    found = score(benchmark(), judge(benchmark(), samples()), k=4)
    assert found.question_scores == {"half": 0.5, "seven": 0.25}
    assert found.avg.value == 0.375
    assert found.pass_at == pytest.approx({2: (5 / 6 + 1 / 2) / 2, 4: 1.0})
    # half: two right ones (spelt differently) against two wrong 2s share the vote; seven: 7, 8 and 9 share it
    assert found.majority == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert (found.median_tokens, found.mean_tokens, found.truncated) == (25, 25, 0.25)
    assert (found.no_answer, found.think_format) == (1 / 8, 2 / 8)
    assert found.nll_correct == pytest.approx((0.1 + 0.2 + 0.1) / 3)
    assert found.nll_incorrect == pytest.approx((0.3 + 0.4 + 0.2 + 0.3 + 0.4) / 5)
    assert found.complete


def test_pass_at_k_itself_is_told_where_k_is_no_power_of_two():
    three = [entry for entry in judge(benchmark(), samples()) if entry.sample.index < 3]
    assert score(benchmark(), three, k=3).pass_at == pytest.approx({2: (1 + 2 / 3) / 2, 3: 1.0})
    assert score(benchmark(), three, k=64).pass_at == pytest.approx({2: (1 + 2 / 3) / 2})


def test_missing_samples_are_said_and_nan_is_null_in_json():
    part = score(benchmark(), judge(benchmark(), samples()[:5]), k=4)
    assert (part.samples, part.complete, part.pass_at) == (5, False, {})
    record = as_record(score(benchmark(), judge(benchmark(), samples({"seven": ["\\boxed{7}"]})), k=1))
    assert record["nll_incorrect"] is None
    assert record["complete"] is False
    with pytest.raises(ValueError, match="no samples"):
        score(benchmark(), [], k=4)


def test_science_by_letter():
    texts = {"half": ["\\boxed{B}", "(b)"], "seven": ["D", "C"]}
    found = score(benchmark("science"), judge(benchmark("science"), samples(texts)), k=2)
    assert found.question_scores == {"half": 1.0, "seven": 0.5}


def test_only_the_present_questions_and_the_first_k_count():
    asked = benchmark()
    stale = samples(prompt="another prompt")
    assert samples_of(asked, stale, 4) == []
    assert {sample.index for sample in samples_of(asked, samples(), 2)} == {0, 1}
    assert samples_of(asked, samples(task="b@2"), 4) == []


def test_code_has_no_majority():
    problem = Problem(
        id="half",
        domain="code",
        prompt="half?",
        tests=(CallTest(function="f", arguments=(4,), expected=2),),
        source="t",
        licence="mit",
    )
    asked = Benchmark(
        name="b",
        version="1",
        domain="code",
        problems={"half": problem},
        messages={"half": "half?"},
        samples=2,
        sampling=Sampling(),
    )
    texts = {"half": ["```python\ndef f(x):\n    return x // 2\n```", "```python\ndef f(x):\n    return x\n```"]}
    found = score(asked, judge(asked, samples(texts)), k=2)
    assert found.avg.value == 0.5
    assert math.isnan(found.majority)

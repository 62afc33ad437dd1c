"""The whole way on a pico model: sample, judge, score; again; with more samples; in shards; with another prompt."""

import math
from dataclasses import replace
from functools import partial

import pytest

from prism_nemo.errors import InputError
from prism_nemo.evaluation import pipeline
from prism_nemo.evaluation.backends.hf import HfBackend
from prism_nemo.evaluation.benchmark import file_benchmarks
from prism_nemo.evaluation.pipeline import evaluate, evaluate_checkpoint, score_store
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.store import GenerationStore
from prism_nemo.verifiers import Problem, StdinTest, save_problems

SHORT = Sampling(temperature=1.0, max_new_tokens=6)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "held_out.jsonl"
    math_ones = [
        Problem(id=f"m{i}", domain="math", prompt=f"{i}+1?\n", answer=str(i + 1), source="t", licence="mit")
        for i in range(6)
    ]
    science = [
        Problem(id=f"s{i}", domain="science", prompt=f"A or B, {i}?\n", answer="A", source="t", licence="mit")
        for i in range(4)
    ]
    save_problems(path, [*math_ones, *science])
    return path


def counted(monkeypatch):
    """How many samples the backend really makes."""
    made = []
    plain = HfBackend.complete

    def complete(self, pieces, sampling):
        for samples in plain(self, pieces, sampling):
            made.extend(samples)
            yield samples

    monkeypatch.setattr(HfBackend, "complete", complete)
    return made


def test_missing_samples_only(pico, problems, tmp_path, monkeypatch):
    made = counted(monkeypatch)
    benchmarks = file_benchmarks(problems, per_domain=4)
    assert [benchmark.name for benchmark in benchmarks] == ["held_out_math", "held_out_science"]
    store = GenerationStore(tmp_path / "s")
    backend = HfBackend(pico("llama_3_1_8b"))
    first = evaluate(backend, benchmarks, store, k=2, sampling=SHORT)
    assert len(made) == 16
    assert [score.samples for score in first] == [8, 8]
    assert evaluate(backend, benchmarks, store, k=2, sampling=SHORT) == first
    assert len(made) == 16
    more = evaluate(backend, benchmarks, store, k=3, sampling=SHORT)
    assert len(made) == 24
    assert all(score.complete and set(score.pass_at) == {2, 3} for score in more)
    assert score_store(store, benchmarks, k=2) == first
    evaluate(HfBackend(pico("llama_3_1_8b"), Prompting(mode="chat")), benchmarks, store, k=2, sampling=SHORT)
    assert len(made) == 40
    assert len(score_store(store, benchmarks, k=2)) == 4
    store.close()


def test_shards_share_the_work_and_change_nothing(pico, problems, tmp_path):
    benchmark = file_benchmarks(problems)[0]
    backend = HfBackend(pico("granite_4_0_h_micro"))
    for shard in ((0, 2), (1, 2)):
        with GenerationStore(tmp_path / "shared") as store:
            assert evaluate(backend, benchmark, store, k=3, sampling=SHORT, shard=shard) == []
    with GenerationStore(tmp_path / "shared") as store, GenerationStore(tmp_path / "alone") as other:
        assert len(store) == 18
        shared, alone = (evaluate(backend, benchmark, one, k=3, sampling=SHORT) for one in (store, other))
        texts = [{(s.question, s.index): s.text for s in one.samples()} for one in (store, other)]
    assert texts[0] == texts[1]
    assert [score.question_scores for score in shared] == [score.question_scores for score in alone]
    assert shared[0].nll == pytest.approx(alone[0].nll, rel=1e-5)


def test_what_another_process_finished_meanwhile_is_left_out(pico, problems, tmp_path, monkeypatch):
    benchmark = file_benchmarks(problems)[0]
    with GenerationStore(tmp_path / "alone") as store:
        evaluate(HfBackend(pico("llama_3_1_8b")), benchmark, store, k=8, sampling=SHORT)
        others = store.samples()
    plain = HfBackend.complete

    def complete(self, pieces, sampling):
        for number, samples in enumerate(plain(self, pieces, sampling)):
            yield samples
            if number == 0:
                with GenerationStore(tmp_path / "shared") as other:
                    other.append(others)

    monkeypatch.setattr(HfBackend, "complete", complete)
    made = counted(monkeypatch)
    with GenerationStore(tmp_path / "shared") as store:
        backend = HfBackend(pico("llama_3_1_8b"), batch_rows=4)
        (score,) = evaluate(backend, benchmark, store, k=8, sampling=SHORT)
        assert len(store) == 48
    assert score.complete
    assert 4 <= len(made) <= 8


def test_processes_with_a_gpu_each_share_the_work_of_a_checkpoint(pico, problems, tmp_path, monkeypatch):
    """With transformers in vLLM's place: the same samples as in one process, each made once."""
    benchmarks = file_benchmarks(problems)
    how = {"k": 3, "sampling": SHORT, "seed": 5, "prompting": Prompting(mode="chat")}
    alone = evaluate_checkpoint(pico("llama_3_1_8b"), benchmarks, tmp_path / "alone", **how)
    monkeypatch.setattr(pipeline, "APART", ("hf",))
    monkeypatch.setattr(pipeline, "gpus", lambda: ["0", "1"])
    shared = evaluate_checkpoint(pico("llama_3_1_8b"), benchmarks, tmp_path / "shared", **how)
    assert [(score.samples, score.question_scores, score.asked) for score in shared] == [
        (score.samples, score.question_scores, score.asked) for score in alone
    ]
    with GenerationStore(tmp_path / "shared") as store, GenerationStore(tmp_path / "alone") as other:
        texts = [{sample.digest: sample.text for sample in one.samples()} for one in (store, other)]
    assert len(texts[0]) == 30
    assert texts[0] == texts[1]
    written = [name.stem.split("-")[1] for name in (tmp_path / "shared/segments").glob("*.parquet")]
    assert len(set(written)) == 2


def test_a_model_that_answers_right_scores_right(pico, problems, tmp_path):
    """The pico model's own greedy answers become the key: all right; then one key is changed."""
    backend = HfBackend(pico("mistral_7b"))
    greedy = Sampling(temperature=0, max_new_tokens=5)
    with GenerationStore(tmp_path / "s") as store:
        benchmark = file_benchmarks(problems)[1]
        evaluate(backend, benchmark, store, k=1, sampling=greedy)
        samples = store.samples()
        (score,) = score_store(store, [benchmark])
    right = sum(s.text.strip() == "A" for s in samples)
    assert score.avg.value == right / 4
    assert score.mean_tokens == sum(s.tokens for s in samples) / 4
    assert score.nll == pytest.approx(sum(s.nll for s in samples) / 4)
    assert math.isnan(score.nll_correct) == (right == 0)


def test_every_benchmark_is_checked_before_the_first_sample(pico, problems, tmp_path, monkeypatch):
    made = counted(monkeypatch)
    math_ones, science = file_benchmarks(problems, sampling=SHORT)
    long = replace(science, sampling=replace(SHORT, max_new_tokens=600))
    with (
        GenerationStore(tmp_path / "s") as store,
        pytest.raises(InputError, match=r"question 's0' needs .* lower max_new"),
    ):
        evaluate(HfBackend(pico("llama_3_1_8b")), [math_ones, long], store, k=1)
    with pytest.raises(InputError, match="lower max_new"):
        evaluate_checkpoint(pico("llama_3_1_8b"), [math_ones, long], tmp_path / "t", k=1)
    assert made == []


def test_programs_are_not_sampled_where_they_cannot_be_run(pico, problems, tmp_path, monkeypatch):
    from prism_nemo import sandbox

    made = counted(monkeypatch)
    maths = file_benchmarks(problems)[0]
    tests = (StdinTest(stdin="", expected=""),)
    programs = {
        name: replace(problem, domain="code", answer=None, tests=tests, language="cpp")
        for name, problem in maths.problems.items()
    }
    code = replace(maths, domain="code", problems=programs)
    missing = {"require": "running code needs bwrap", "require_compiler": "C++ problems need g++"}

    def refuse(message):
        raise InputError(message)

    for name, message in missing.items():
        monkeypatch.setattr(sandbox, name, partial(refuse, message))
    with GenerationStore(tmp_path / "s") as store:
        with pytest.raises(InputError, match="needs bwrap"):
            evaluate(HfBackend(pico("llama_3_1_8b")), code, store, k=1, sampling=SHORT)
        monkeypatch.setattr(sandbox, "require", lambda: None)
        with pytest.raises(InputError, match="need g"):
            evaluate(HfBackend(pico("llama_3_1_8b")), code, store, k=1, sampling=SHORT)
        assert made == []
        evaluate(HfBackend(pico("llama_3_1_8b")), code, store, k=1, sampling=SHORT, shard=(0, 2))  # scored elsewhere
        assert len(made) == 3


def test_the_suites_own_sampling_is_what_is_scored(pico, problems, tmp_path):
    """`quick` and `prism` differ in nothing else, and share a store."""
    benchmark = file_benchmarks(problems, sampling=SHORT)[0]
    other = replace(benchmark, sampling=replace(SHORT, max_new_tokens=3))
    with GenerationStore(tmp_path / "s") as store:
        backend = HfBackend(pico("llama_3_1_8b"))
        evaluate(backend, benchmark, store, k=1)
        evaluate(backend, other, store, k=1)
        (own,) = score_store(store, [benchmark], k=1)
        (short,) = score_store(store, [other], k=1)
        assert (own.asked.sampling, short.asked.sampling) == (benchmark.sampling, other.sampling)
        third = replace(benchmark, sampling=replace(SHORT, max_new_tokens=4))
        assert {found.protocol for found in score_store(store, [third], k=1)} == {own.protocol, short.protocol}
        assert score_store(store, [benchmark], k=1, protocols=[short.protocol[:8]]) == [short]
        assert len(score_store(store, [benchmark], k=1, protocols=[short.protocol[:8], own.protocol])) == 2
        with pytest.raises(InputError, match=f"no protocol zz; it has .*{own.protocol[:8]}"):
            score_store(store, [benchmark], protocols=["zz"])


def test_unknown_model_and_shards_and_empty(problems, tmp_path):
    with GenerationStore(tmp_path / "s") as store:
        with pytest.raises(InputError, match="no samples of model abc"):
            score_store(store, file_benchmarks(problems), models=["abc"])
        assert score_store(store, file_benchmarks(problems)) == []

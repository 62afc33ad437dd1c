"""Prompt pools: each form becomes a problem; what cannot is counted; no duplicates, no benchmark questions."""

import json

import pytest

from prism_nemo.artifacts import verify
from prism_nemo.errors import InputError
from prism_nemo.rl.pools import POOLS, rows
from prism_nemo.rl.prompts import collect, gather
from prism_nemo.verifiers import AssertTest, CallTest, StdinTest, load_problems

STEM = "Which gas?\nA) oxygen\nB) helium"
ROWS = {
    "deepscaler": {"problem": "1+1?", "answer": "2", "solution": "..."},
    "intellect2": {
        "prompt": "2+2?",
        "task_type": "verifiable_math",
        "verification_info": '{"ground_truth": "\\\\frac{8}{2}"}',
    },
    "skywork": {
        "prompt": [{"role": "user", "content": "3+3?"}],
        "reward_model": {"ground_truth": '["6"]', "style": "rule"},
        "ability": "math",
    },
    "deepcoder": {
        "problem": "Double the number.",
        "tests": '[{"input": "2\\n", "output": "4\\n", "type": "stdin_stdout"}]',
    },
    "opencodeinstruct": {"input": "Write f that adds one.", "unit_tests": '["assert f(1) == 2", "assert f(0) == 1"]'},
    "nemotron_stem": {
        "messages": [
            {"role": "user", "content": STEM},
            {"role": "assistant", "content": "<think>x</think>It is \\boxed{B}"},
        ]
    },
}


def write(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def test_every_pool_becomes_a_problem(tmp_path):
    assert set(ROWS) == set(POOLS)
    found = collect([(pool, write(tmp_path / f"{pool}.jsonl", [row])) for pool, row in ROWS.items()])
    assert found.dropped == []
    by_pool = {problem.id.split("-")[0]: problem for problem in found.kept}
    assert [by_pool[pool].domain for pool in ROWS] == ["math", "math", "math", "code", "code", "science"]
    assert by_pool["skywork"].answer == "6"
    assert by_pool["deepcoder"].tests == (StdinTest(stdin="2\n", expected="4\n"),)
    assert by_pool["opencodeinstruct"].tests == (
        AssertTest(code="assert f(1) == 2"),
        AssertTest(code="assert f(0) == 1"),
    )
    assert by_pool["nemotron_stem"].answer == "B"


def test_function_tests(tmp_path):
    row = {
        "problem": "Write f.",
        "tests": json.dumps([{"input": "[1]\n2", "output": "3", "testtype": "functional"}]),
        "metadata": {"func_name": "f"},
    }
    found = collect([("deepcoder", write(tmp_path / "a.jsonl", [row]))])
    assert found.kept[0].tests == (CallTest(function="f", arguments=([1], 2), expected=3),)


def test_bad_rows_are_counted_with_their_reason(tmp_path):
    bad = [{"problem": "x"}, {"problem": "", "answer": "1"}, [1], {"problem": "y", "answer": "\\frac{"}, 7]
    path = write(tmp_path / "a.jsonl", [*bad, ROWS["deepscaler"]])
    path.write_text(path.read_text() + "{torn\n")
    stem = {"messages": [{"role": "user", "content": "Open question"}, {"role": "assistant", "content": "\\boxed{B}"}]}
    found = collect([("deepscaler", path), ("nemotron_stem", write(tmp_path / "b.jsonl", [stem]))])
    assert len(found.kept) == 1
    assert found.read == {"deepscaler": 7, "nemotron_stem": 1}
    assert found.report()["dropped"] == {
        "deepscaler: unexpected form": 4,
        "deepscaler: no problem": 1,
        "deepscaler: unreadable key": 1,
        "nemotron_stem: the prompt does not list the option that is right": 1,
    }


def test_second_copies_go_but_other_signs_stay(tmp_path):
    prompts = ["What is 3 + 4?", "what is  3 + 4?\n", "What is 3 - 4?"]
    path = write(tmp_path / "a.jsonl", [{"problem": text, "answer": "7"} for text in prompts])
    found = collect([("deepscaler", path)])
    assert [problem.prompt for problem in found.kept] == [prompts[0], prompts[2]]
    assert found.dropped[0]["of"] == found.kept[0].id


def test_parquet_and_folders(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([ROWS["deepscaler"]]), tmp_path / "a.parquet")
    write(tmp_path / "b.jsonl", [{"problem": "5+5?", "answer": "10"}])
    assert [row["problem"] for _, row in rows(tmp_path)] == ["1+1?", "5+5?"]
    with pytest.raises(InputError, match=r"no \.jsonl or \.parquet"):
        list(rows(tmp_path / "none.csv"))


@pytest.fixture
def benchmark_list(tmp_path):
    question = "How many of the first one hundred positive integers are divisible by three but not by seven?"
    write(tmp_path / "bench.jsonl", [{"question": question}])
    path = tmp_path / "list.yaml"
    path.write_text("benchmarks: [{name: tiny, path: bench.jsonl, render: {column: question}}]\nngram: 8\nshortest: 4")
    return path, question


def test_benchmark_questions_are_left_out(tmp_path, benchmark_list):
    path, question = benchmark_list
    problems = [
        {"problem": "no answer"},
        {"problem": f"Please solve: {question.upper()} Think.", "answer": "3"},
        {"problem": "How many primes?", "answer": "4"},
    ]
    out = gather([("deepscaler", write(tmp_path / "in.jsonl", problems))], tmp_path / "out", benchmarks=str(path))
    assert [problem.prompt for problem in load_problems(out / "problems.jsonl")] == ["How many primes?"]
    _, dropped = map(json.loads, (out / "dropped.jsonl").read_text().splitlines())
    assert (dropped["reason"], dropped["item"].split()[0]) == ("contaminated", "tiny")
    _, (number, _), _ = rows(tmp_path / "in.jsonl")
    assert (dropped["pool"], dropped["row"]) == ("deepscaler", number), "where the source has it"
    assert verify(out) == []


def test_another_content_of_the_benchmark_list_is_another_result(tmp_path, benchmark_list):
    path, _ = benchmark_list
    source = [("deepscaler", write(tmp_path / "in.jsonl", [ROWS["deepscaler"]]))]
    gather(source, tmp_path / "out", benchmarks=str(path))
    moved = tmp_path / "moved.yaml"
    moved.write_text(path.read_text())
    before = (tmp_path / "out/artifact.json").stat().st_mtime_ns
    gather(source, tmp_path / "out", benchmarks=str(moved))
    assert (tmp_path / "out/artifact.json").stat().st_mtime_ns == before, "what the list is called does not count"
    write(tmp_path / "bench.jsonl", [{"question": "Another question altogether, of which nobody has ever heard?"}])
    with pytest.raises(InputError, match="was made differently: benchmarks"):
        gather(source, tmp_path / "out", benchmarks=str(path))


def test_gather_is_up_to_date_and_refuses(tmp_path):
    path = write(tmp_path / "a.jsonl", [ROWS["deepscaler"]])
    out = gather([("deepscaler", path)], tmp_path / "out", benchmarks=None)
    before = (out / "artifact.json").stat().st_mtime_ns
    gather([("deepscaler", path)], tmp_path / "out", benchmarks=None)
    assert (out / "artifact.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="unknown pool"):
        gather([("deepscalar", path)], tmp_path / "other", benchmarks=None)
    with pytest.raises(InputError, match="no prompt is left"):
        gather([("deepscaler", write(tmp_path / "b.jsonl", [{}]))], tmp_path / "empty", benchmarks=None)
    assert not (tmp_path / "empty").exists()

"""Shipped benchmarks on small fixtures in the published schemas, and everything that can be wrong with a file."""

import base64
import json
import pickle
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from prism_nemo.errors import InputError
from prism_nemo.evaluation import benchmark as b
from prism_nemo.evaluation import definitions as d
from prism_nemo.evaluation.suites import PAPER, PRESETS, load_suite, parse_suite
from prism_nemo.verifiers import CallTest, StdinTest, verify

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def load(monkeypatch):
    """load(name, rows=None, **options): the fixture, whatever its number of questions."""

    def found(name, path=None, count=None, **options):
        path = path or FIXTURES / f"{name}.jsonl"
        rows = [row for row in map(json.loads, path.read_text().splitlines()) if not row.get("interaction_format")]
        small = d.definitions() | {name: replace(d.definition(name), questions=count or len(rows))}
        monkeypatch.setattr(d, "definitions", lambda: small)
        return b.load_benchmark(name, data=path, **options)

    yield found


def test_the_papers_protocol():
    found = {
        name: (x.questions, x.samples, x.sampling.temperature, x.sampling.top_p) for name, x in d.definitions().items()
    }
    assert found == {
        "aime24": (30, 64, 0.6, 0.95),
        "aime25": (30, 64, 0.6, 0.95),
        "aime26": (30, 64, 0.6, 0.95),
        "math500": (500, 64, 0.6, 0.95),
        "livecodebench_v5": (279, 3, 0.7, 1.0),
        "codeforces": (453, 3, 0.7, 1.0),
        "gpqa_diamond": (198, 3, 0.7, 1.0),
    }
    assert set(PAPER) == set(found) - {"aime26"}
    assert d.definition("aime26").held_out
    assert all(x.sampling.max_new_tokens == 32_768 for x in d.definitions().values())


@pytest.mark.parametrize("name", sorted(d.definitions()))
def test_every_benchmark_loads_from_its_schema(load, name):
    found = load(name)
    assert found.domain == d.definition(name).domain
    for problem in found.problems.values():
        assert found.messages[problem.id] == problem.prompt
        assert "{{" not in problem.prompt
        assert "None" not in problem.prompt


@pytest.mark.parametrize(
    ("name", "question", "completion", "outcome"),
    [
        ("aime24", "60", "<think>2*2*2</think>The answer is \\boxed{8}.", "correct"),
        ("aime24", "60", "\\boxed{9}", "wrong"),
        ("math500", "test/prealgebra/1.json", "\\boxed{0.5}", "correct"),
        ("math500", "test/precalculus/807.json", "\\boxed{(3, \\frac{\\pi}{2})}", "correct"),
        ("math500", "test/precalculus/807.json", "\\boxed{(3, \\pi)}", "wrong"),
    ],
)
def test_labelled_answers(load, name, question, completion, outcome):
    assert verify(load(name).problems[question], completion).outcome == outcome


def test_gpqa_letters_vary_and_the_key_is_where_the_right_choice_stands(load):
    found = load("gpqa_diamond")
    for i, problem in enumerate(found.problems.values()):
        assert f"{problem.answer}) right {i}" in problem.prompt
        assert verify(problem, f"\\boxed{{{problem.answer}}}").correct
    assert len({problem.answer for problem in found.problems.values()}) > 1
    again = load("gpqa_diamond")
    assert again.messages == found.messages
    theirs = load("gpqa_diamond", shuffle="evalchemy")
    assert {problem.answer for problem in theirs.problems.values()} == {"D"}
    assert theirs.task == "gpqa_diamond@1+shuffle=evalchemy"


def test_livecodebench_reads_stdin_and_method_tests_and_unpickles_nothing(load, tmp_path):
    whole, method = load("livecodebench_v5").problems.values()
    assert whole.tests == (StdinTest(stdin="3 4\n", expected="7\n"), StdinTest(stdin="10 5\n", expected="15\n"))
    assert method.tests[1] == CallTest(function="Solution.double", arguments=(-1, []), expected=-2)
    assert "take stdin as input" in whole.prompt
    assert "class Solution" in method.prompt
    evil = base64.b64encode(zlib.compress(pickle.dumps(print))).decode()
    row = json.loads((FIXTURES / "livecodebench_v5.jsonl").read_text().splitlines()[0])
    path = tmp_path / "evil.jsonl"
    path.write_text(json.dumps(row | {"private_test_cases": evil}))
    with pytest.raises(InputError, match="expected one"):
        load("livecodebench_v5", path)
    call = json.dumps([{"input": "no JSON", "output": "1", "testtype": "functional"}])
    path.write_text(json.dumps(row | {"private_test_cases": call, "metadata": '{"func_name": "double"}'}))
    with pytest.raises(InputError, match=r"evil\.jsonl:1: a call's arguments or result are no JSON"):
        load("livecodebench_v5", path)


def test_codeforces_leaves_out_interactive_ones_and_keeps_the_editorial_to_itself(load):
    found = load("codeforces")
    assert list(found.problems) == ["2063/A", "2063/C"]
    assert "Just add them" not in "".join(found.messages.values())
    assert "Mind the sign" in found.messages["2063/C"]
    leaking = load("codeforces", editorial=True)
    assert "Just add them" in leaking.messages["2063/A"]
    assert leaking.task != found.task
    assert len(found.problems["2063/A"].tests) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, r"aime24\.jsonl:2: aime24 needs the column 'answer'"),
        ({"id": None}, r"aime24\.jsonl:2: aime24 needs the column 'id'"),
        ({"answer": "\\frac{"}, r"aime24\.jsonl:2: question '61': key"),
        ({"id": 60}, r"aime24\.jsonl:2: the id '60' was already used in .*aime24\.jsonl:1"),
    ],
)
def test_bad_rows_are_found_before_the_gpu_hours(load, tmp_path, change, message):
    rows = [json.loads(line) for line in (FIXTURES / "aime24.jsonl").read_text().splitlines()]
    path = tmp_path / "aime24.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [rows[0], rows[1] | change]))
    with pytest.raises(InputError, match=message):
        load("aime24", path)


def test_other_data_under_this_name_is_refused(load, tmp_path):
    with pytest.raises(InputError, match="2 questions, aime24 has 30"):
        load("aime24", count=30)
    with pytest.raises(InputError, match="does not exist"):
        b.load_benchmark("aime24", data=tmp_path / "no.jsonl")
    (tmp_path / "x.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"x\.jsonl:1: expected an object"):
        b.load_benchmark("aime24", data=tmp_path / "x.jsonl")
    with pytest.raises(InputError, match="no option shuffle"):
        load("aime24", shuffle="x")
    (tmp_path / "x.jsonl").write_bytes(b'{"id": 1, "problem": "caf\xe9", "answer": "1"}\n')
    with pytest.raises(InputError, match=r"x\.jsonl is not UTF-8"):
        b.load_benchmark("aime24", data=tmp_path / "x.jsonl")
    (tmp_path / "x.parquet").write_bytes(b"no such thing")
    with pytest.raises(InputError, match=r"x\.parquet is no Parquet file"):
        b.load_benchmark("aime24", data=tmp_path / "x.parquet")


def test_suites():
    assert parse_suite("aime24:8,gpqa_diamond") == [("aime24", 8, "prism"), ("gpqa_diamond", None, "prism")]
    assert [entry[0] for entry in parse_suite("prism")] == list(PRESETS["prism"])
    assert {entry[2] for entry in parse_suite("quick")} == {"quick"}
    for word, message in (("aime24:0", "at least 1"), ("", "names no benchmark"), ("mathh500", "did you mean math500")):
        with pytest.raises(InputError, match=message):
            parse_suite(word)


def test_the_quick_preset_asks_the_same_with_less(load, monkeypatch):
    full = load("math500")
    quick = load("math500", preset="quick")
    assert (quick.samples, quick.sampling.max_new_tokens) == (1, 8192)
    assert (quick.task, quick.messages) == (full.task, full.messages)
    (one,) = load_suite("math500:5", {"math500": FIXTURES / "math500.jsonl"})
    assert one.samples == 5


@pytest.mark.parametrize("ending", ["json", "csv", "parquet"])
def test_other_file_kinds(load, tmp_path, ending):
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    from prism_nemo.evaluation.rows import read_rows

    rows = [json.loads(line) for line in (FIXTURES / "aime25.jsonl").read_text().splitlines()]
    path = tmp_path / f"aime25.{ending}"
    if ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    assert [row for _, row in read_rows(path)] == rows

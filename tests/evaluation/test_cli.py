"""`prism eval` on a pico model, by the words a user types."""

import json

import pytest
from typer.testing import CliRunner

from prism_nemo.cli.evaluate import app
from prism_nemo.errors import InputError
from prism_nemo.evaluation.arguments import benchmarks_of, share
from prism_nemo.verifiers import Problem, save_problems


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "sums.jsonl"
    rows = [
        Problem(id=f"m{i}", domain="math", prompt=f"{i}+1?\n", answer=str(i + 1), source="t", licence="mit")
        for i in range(4)
    ]
    save_problems(path, rows)
    return path


def prism(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_run_score_compare(pico, problems, tmp_path):
    common = ["--problems", problems, "--store", tmp_path / "s", "-k", 2]
    short = ["--max-new-tokens", 5, "--format", "json"]
    for base in ("llama_3_1_8b", "mistral_7b"):
        run = json.loads(prism("run", pico(base), *common, *short))
    assert run["records"][0]["samples"] == 8
    assert json.loads(prism("score", *common, "--model", pico("mistral_7b"), "--json")) == run
    shared = prism("run", pico("llama_3_1_8b"), *common, *short, "--seed", 1, "--shard", "2/2")
    assert "share 2/2 is sampled" in shared
    names = [f"base={pico('llama_3_1_8b')}", f"mt={pico('mistral_7b')}"]
    out = tmp_path / "table.md"
    prism("compare", *names, *common, "--seed", 0, "--format", "markdown", "--out", out)
    assert "| sums_math |" in out.read_text()
    page = tmp_path / "table.html"
    prism("compare", *names, *common, "--seed", 0, "--out", page)
    assert page.read_text().startswith("<!doctype html>")
    steps = [f"20={pico('llama_3_1_8b')}", f"40={pico('mistral_7b')}"]
    assert "final step" in prism("compare", *steps, *common, "--seed", 0, "--steps", "--by", "sums_math")


def test_held_out(pico, tmp_path):
    documents = tmp_path / "d.jsonl"
    documents.write_text('{"text": "One document."}\n{"text": "And another one."}\n')
    model = pico("llama_3_1_8b")
    found = json.loads(prism("held-out", model, documents, "--against", model, "--json"))
    assert found["difference"]["value"] == 0
    assert found["documents"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nowhere", "--problems", "FILE"], "nowhere is no directory"),
        (["run", "nowhere", "--suite", "aime42"], "did you mean aime2"),
        (["run", "nowhere"], "give either --suite"),
        (["run", "nowhere", "--problems", "FILE", "--format", "xml"], "unknown format 'xml'"),
        (["run", "nowhere", "--problems", "FILE", "--out", "no/table.md"], "is no directory; make it first"),
        (["run", "nowhere", "--problems", "FILE", "--backend", "tgi"], "unknown backend 'tgi'"),
        (["run", "nowhere", "--problems", "FILE", "--backend", "openai"], "--url belongs to"),
        (["run", "nowhere", "--problems", "FILE", "--shard", "0/4"], "shares count from 1"),
        (["run", "nowhere", "--problems", "FILE", "--temperature", "-1"], "must not be negative"),
        (["run", "nowhere", "--problems", "FILE", "--prompting", "template"], "names {{ prompt }}"),
        (["score", "--problems", "FILE", "--store", "nowhere"], "sample first"),
        (["run", "nowhere", "--suite", "aime24", "--data", "aime25=x.jsonl"], "aime25 is given data"),
        (["run", "nowhere", "--suite", "codeforces", "--option", "codeforces=1"], "expected NAME.KEY=VALUE"),
        (["run", "nowhere", "--suite", "aime24,quick"], "aime24 named twice"),
        (["run", "nowhere", "--suite", "leaderboard_v1"], "nowhere is no directory"),
        (["run", "nowhere", "--suite", "ruler,aime24"], "unknown retention task 'aime24'"),
        (["run", "nowhere", "--suite", "ruler", "--prompting", "chat"], "are asked raw"),
        (["run", "nowhere", "--suite", "aime24", "--paper", "granite-3.3-8b:mt"], "belong to ruler"),
        (["run", "name", "--suite", "ruler", "--backend", "openai"], "give --model-dir"),
    ],
)
def test_wrong_words_are_refused_first(problems, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    words = [str(problems) if word == "FILE" else word for word in words]
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert message in str(caught.value)


def test_shares(monkeypatch):
    assert share("3/8") == (2, 8)
    for name, value in (("ID", "7"), ("MIN", "5"), ("COUNT", "4")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert share("slurm") == (2, 4)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    with pytest.raises(InputError, match="array job"):
        share("slurm")


def test_one_of_suite_and_problems(problems):
    assert [b.name for b in benchmarks_of("", problems, 2, [], [])] == ["sums_math"]
    with pytest.raises(InputError, match="give either"):
        benchmarks_of("aime24", problems, 0, [], [])

"""`prism rl`: what a user types, what comes back, exit codes."""

import json

import pytest
from pico import make_model
from typer.testing import CliRunner

from prism_nemo.cli.rl import app
from prism_nemo.errors import InputError
from prism_nemo.rl.nemo_rl.prepare import CODE
from prism_nemo.verifiers import Problem, load_problems, save_problems

RUN = CliRunner()


def call(*words):
    """Run a command; a PrismError comes out as it does for `main`."""
    result = RUN.invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def problems(tmp_path):
    made = [
        Problem(id=str(n), domain="math", prompt=f"{n}+1=", answer=str(n + 1), source="made here", licence="MIT")
        for n in range(8)
    ]
    save_problems(tmp_path / "p.jsonl", made)
    return tmp_path / "p.jsonl"


def test_prompts(tmp_path, problems):
    result = call("prompts", f"problems={problems}", "--out", tmp_path / "out", "--decontaminate", "none", "--json")
    assert json.loads(result.stdout)["kept"] == 8
    assert len(load_problems(tmp_path / "out/problems.jsonl")) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompts", "x.jsonl", "--out", "o"], "POOL=PATH"),
        (["prompts", "nopool=x.jsonl", "--out", "o"], "unknown pool"),
        (["run", "--model", "m", "--prompts", "p", "--out", "o", "stepz=1"], "did you mean 'steps'"),
        (["run", "--model", "m", "--prompts", "p", "--out", "o", "preset=dapo"], "give it as --preset"),
        (["run", "--model", "m", "--prompts", "p", "--out", "o", "--preset", "x"], "must be one of paper, dapo"),
        (["run", "--model", "m", "--prompts", "p", "--out", "o", "--engine", "x"], "unknown engine"),
        (["run", "--model", "m", "--prompts", "p", "--out", "o"], r"rl\.model: m does not exist"),
        (
            ["run", "--model", "m", "--prompts", "p", "--out", "o", "--engine", "nemo_rl", "--cluster", "x=1"],
            "cluster.x",
        ),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        call(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_job_for_both_engines(tmp_path, problems, tokenizer):
    folder, vocab = tokenizer
    sizes = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64}
    model = make_model("llama_3_1_8b", tmp_path / "model", folder, vocab, **sizes)
    values = [
        "steps=2",
        "prompts_per_step=4",
        "samples_per_prompt=2",
        "max_tokens=32",
        "max_new_tokens=8",
        "domains=math",
    ]
    places = ["--model", model, "--prompts", problems, "--out"]
    trained = call("run", *places, tmp_path / "trl", *values)
    assert "step 2/2: reward" in trained.stdout
    mounts = f"mounts={tmp_path}:{tmp_path},{CODE}:{CODE}"
    cluster = ["--engine", "nemo_rl", "--cluster", "nodes=1", "--cluster", mounts]
    written = call("run", *places, tmp_path / "cluster", *cluster, *values)
    assert (tmp_path / "cluster/launch.sh").is_file()
    assert "no softly updated reference policy" in written.stderr

"""The whole chain as a user runs it, with budgets of seconds: every stage, stop and go, another layout."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prism_nemo.artifacts import path_fingerprint, verify
from prism_nemo.engine import local
from prism_nemo.engine.progress import read_progress
from prism_nemo.recipe import load_recipe, override
from prism_nemo.stages.status import overview
from prism_nemo.stages.training import train_job

pytestmark = pytest.mark.slow

SMALL = [
    *("pretrain.tokens=20480", "midtrain.tokens=61440", "midtrain.log_every=5", "midtrain.save_every_tokens=20480"),
    *("pretrain.warmup_steps=2", "midtrain.warmup_steps=2"),
    *("rl.steps=2", "rl.prompts_per_step=6", "rl.samples_per_prompt=2", "rl.save_every=1", "analyze.cka_inputs=120"),
    *("evaluate.problems_per_domain=4", "evaluate.samples_per_problem=2"),
    *("long_context.tokens=10240", "long_context.warmup_steps=2"),
    *("analyze.landscape_problems=2", "analyze.landscape_samples=1"),
]
COMMAND = [sys.executable, "-m", "prism_nemo.cli.main", "run"]


def prism_run(recipe: str, out: Path, *more: str, check: bool = True) -> subprocess.CompletedProcess:
    result = subprocess.run(
        [*COMMAND, recipe, *SMALL, "--out", str(out), *more], capture_output=True, text=True, check=False, timeout=560
    )
    assert not check or result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the dense rehearsal."""
    out = tmp_path_factory.mktemp("dense") / "run"
    result = prism_run("tiny_dense", out)
    assert f"report: {out / 'report' / 'report.html'}" in result.stdout
    return out


def copied(run: Path, target: Path) -> Path:
    """A copy of a run up to the start of mid-training."""
    order = (run / ".stages" / "order.txt").read_text().split()
    keep = order[: order.index("midtrain")]
    target.mkdir()
    for name in keep:
        shutil.copytree(run / name, target / name)
    (target / ".stages").mkdir()
    for name in keep:
        shutil.copy(run / ".stages" / f"{name}.json", target / ".stages")
    return target


def test_every_stage_is_done_and_whole(dense: Path) -> None:
    lines = overview(dense)
    assert {line.state for line in lines} == {"done"}
    for line in lines:
        assert verify(dense / line.name) == []
    scores = json.loads((dense / "evaluate" / "scores.json").read_text())
    assert set(scores["arms"]) == {"base", "rl_base", "mt", "rl"}
    for arm in scores["arms"].values():
        assert set(arm["domains"]) == {"math", "code", "science"}
        for domain in arm["domains"].values():
            assert 0 <= domain["low"] <= domain["avg"] <= domain["high"] <= 1
    assert all(0 < entry["loss"] < 10 for entry in scores["retention"].values())


def test_the_long_context_restoration_is_measured_at_every_point(dense: Path) -> None:
    report = json.loads((dense / "analysis_long_context" / "report.json").read_text())
    points = ["base", "mt", "merge", "long_context_attention", "long_context"]
    assert report["labels"] == points
    for name in points:
        found = report["points"][name]
        assert [row["end"] for row in found["positions"]] == [128, 256, 512]
        assert all(0 < row["loss"]["value"] < 10 for row in found["positions"])
        assert [row["length"] for row in found["needles"]] == [64, 128, 256, 512]


def test_the_restoration_ends_with_its_table(dense: Path) -> None:
    shutil.rmtree(dense / "analysis_long_context")
    result = prism_run("tiny_dense", dense, "--from", "merge", "--to", "evaluate")
    assert "analysis_long_context: done" in result.stdout
    begin = result.stdout.index("Loss by tokens into a document")
    rows = [line.strip().split("  ")[0] for line in result.stdout[begin:].splitlines()[1:]]
    found = [row for row in rows if row in ("base", "MT", "merge", "merge + LC, attention", "merge + LC")]
    assert found == ["base", "MT", "merge", "merge + LC, attention", "merge + LC"]


def test_training_attention_only_leaves_the_rest_as_merged(dense: Path) -> None:
    merged, trained = (load_file(dense / name / "model.safetensors") for name in ("merge", "long_context_attention_hf"))
    changed = {name for name in merged if not torch.equal(merged[name], trained[name])}
    assert changed
    assert all(re.search(r"\.self_attn\.[qkvo]_proj\.", name) for name in changed), changed


def test_mid_training_starts_from_the_base_with_a_fresh_schedule(dense: Path, tmp_path: Path) -> None:
    """Beside the same training from random weights."""
    recipe = override(load_recipe("tiny_dense"), SMALL)
    start, blend, run = dense / "random_megatron", dense / "blend", tmp_path / "run"
    job = train_job(recipe, recipe.midtrain, model=dense / "random", start=start, blend=blend, checkpoints=run)
    local.run_local(job, recipe.parallel.of(recipe.midtrain).world)
    ours, from_random = read_progress(dense / "midtrain"), read_progress(run)
    assert [line["learning_rate"] for line in ours] == [line["learning_rate"] for line in from_random]
    assert ours[0]["loss"] < from_random[0]["loss"] - 0.1


def test_a_second_run_finds_everything_up_to_date(dense: Path) -> None:
    result = prism_run("tiny_dense", dense)
    assert result.stdout.count("up to date") == len(overview(dense))


def test_a_removed_stage_is_redone_and_no_earlier_one(dense: Path) -> None:
    before = {name: path_fingerprint(dense / name) for name in ("midtrain", "rl", "evaluate")}
    shutil.rmtree(dense / "mt")
    result = prism_run("tiny_dense", dense, "--to", "evaluate")
    assert "mt: done" in result.stdout
    assert "midtrain: up to date" in result.stdout
    assert path_fingerprint(dense / "midtrain") == before["midtrain"]


def test_tensor_parallel_gives_the_same_losses(dense: Path, tmp_path: Path) -> None:
    run = copied(dense, tmp_path / "run")
    prism_run("tiny_dense", run, "parallel.tensor=2", "--to", "midtrain")
    one = [line["loss"] for line in read_progress(dense / "midtrain")]
    two = [line["loss"] for line in read_progress(run / "midtrain")]
    assert len(one) == len(two) > 5
    assert two == pytest.approx(one, rel=1e-4)


def test_killed_in_mid_training_and_started_again_ends_with_the_same_weights(dense: Path, tmp_path: Path) -> None:
    run = copied(dense, tmp_path / "run")
    process = subprocess.Popen(
        [*COMMAND, "tiny_dense", *SMALL, "--out", str(run), "--to", "mt"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    partial = run / ".midtrain.partial"
    deadline = time.monotonic() + 200
    while not list(partial.glob("iter_*/metadata.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "midtrain").exists()
    prism_run("tiny_dense", run, "--to", "mt")
    assert (run / "mt" / "model.safetensors").read_bytes() == (dense / "mt" / "model.safetensors").read_bytes()
    curves = [[line["loss"] for line in read_progress(folder / "midtrain")] for folder in (run, dense)]
    assert curves[0] == curves[1]


def test_stopped_on_request_saves_and_exits_75(dense: Path, tmp_path: Path) -> None:
    run = copied(dense, tmp_path / "run")
    process = subprocess.Popen(
        [*COMMAND, "tiny_dense", *SMALL, "--out", str(run), "--to", "mt"], stderr=subprocess.PIPE, text=True
    )
    progress = run / ".midtrain.partial" / "progress.jsonl"
    deadline = time.monotonic() + 200
    while not progress.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 75, errors
    prism_run("tiny_dense", run, "--to", "mt")
    assert (run / "mt" / "model.safetensors").read_bytes() == (dense / "mt" / "model.safetensors").read_bytes()


def test_the_hybrid_rehearsal_runs_every_stage(tmp_path: Path) -> None:
    prism_run("tiny_hybrid", tmp_path / "run", "analyze.cka_inputs=20")
    assert {line.state for line in overview(tmp_path / "run")} == {"done"}


def test_bad_input_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    for more, words in (
        ([f"data.sources.math={tmp_path / 'empty.jsonl'}"], "empty"),
        ([f"data.sources.math={tmp_path / 'absent.jsonl'}"], "absent.jsonl"),
        (["parallel.tensor=3"], "parallel.tensor=3 does not divide"),
    ):
        result = prism_run("tiny_dense", tmp_path / "run", *more, check=False)
        assert result.returncode == 2, result.stderr
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2
        assert not (tmp_path / "run").exists()

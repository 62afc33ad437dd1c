"""Submission: what is checked first, the dry run, the code that travels, and what the queue's answers mean."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prism_nemo.cli.main import app
from prism_nemo.errors import InputError, PrismError
from prism_nemo.launch import last_lines, queue_state, submit
from prism_nemo.launch.queue import read_jobs
from prism_nemo.launch.snapshot import snapshot
from prism_nemo.recipe import Recipe, load_recipe, override


@dataclass
class Work:
    """A stage as this room sees it."""

    name: str
    ranks: int = 1
    gpu: bool = False
    share: object | None = None
    inputs: dict = field(default_factory=dict)


def command(folder: Path, name: str, script: str, patch: pytest.MonkeyPatch) -> None:
    """Put a program of SLURM's name on the path."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("tiny_dense")


def test_dry_run_prints_recipe_and_scripts_and_writes_nothing(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert (
        submit(recipe, "tiny_dense", ["seed=1"], [Work("blend"), Work("midtrain")], run, profile="local", dry_run=True)
        == []
    )
    printed = capsys.readouterr().out
    assert printed.startswith("name: tiny_dense\n")
    assert printed.count("#!/bin/bash") == 2
    assert '#SBATCH --dependency="afterok:<id of blend>"' in printed or "afterok:<id of blend>" in printed
    assert "--stage midtrain --stalled 3 -- tiny_dense seed=1" in printed
    assert not run.exists()


def test_work_that_can_be_shared_is_an_array_and_the_stage_after_it(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text('extends = "local"\nprepare_jobs = 4\n')
    stages = [Work("base"), Work("blend", share=print), Work("midtrain", ranks=2, gpu=True)]
    submit(
        recipe,
        "tiny_dense",
        ["parallel.tensor=2", "parallel.nodes=1"],
        stages,
        tmp_path / "run",
        profile=str(profile),
        dry_run=True,
    )
    _, _, array, blend, _ = capsys.readouterr().out.split("# ---- ")
    assert "#SBATCH --array=0-3\n" in array
    assert "--stage blend --stalled 3 --shares 4 -- tiny_dense" in array
    assert "blend.shares_%A_%a.out" in array
    assert "afterok:<id of base>" in array
    assert "--array" not in blend
    assert "afterok:<id of blend.shares>" in blend


def rl_stages(run: Path) -> list[Work]:
    return [Work("mt"), Work("rl", inputs={"policy": run / "mt", "prompts": Path("/data/p.jsonl")}), Work("evaluate")]


def test_nemo_rl_is_three_jobs_of_which_one_submits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")
    run, changes = tmp_path / "run", ["rl.prompts=/data/p.jsonl", "rl.steps=40", "parallel.nodes=2"]
    recipe = override(load_recipe("llama_3_1_8b"), changes)
    submit(recipe, "llama_3_1_8b", changes, rl_stages(run), run, profile="enroot", dry_run=True)
    _, _, config, rl, export, evaluate = capsys.readouterr().out.split("# ---- ")
    code = f"{run}/.slurm/code-HASH/code"
    assert f"env -C {code} python -m prism_nemo.cli.main rl run --engine nemo_rl --model {run}/mt" in config
    assert f"--prompts /data/p.jsonl --out {run}/rl.nemo_rl --cluster nodes=2" in config
    assert "image=/shared/images/nemo-rl.sqsh" in config and "steps=40" in config and "rl.engine" not in config
    assert "--container-image /shared/images/prism-nemo.sqsh" in config
    assert f" bash {code}/slurm/rl.sh {run} rl /shared/NeMo-RL 40" in rl and "--container-image" not in rl
    assert "afterok:<id of rl_config>" in rl and "#SBATCH --gpus" not in rl
    assert f"rl export {run}/rl.nemo_rl/checkpoints/step_40 --out {run}/rl" in export
    assert "--container-image /shared/images/prism-nemo.sqsh" in export and "#SBATCH --gpus" not in export
    assert "afterok:<id of rl_export>" in evaluate


@pytest.mark.parametrize(
    ("profile", "changes", "words"),
    [
        ("enroot", [], "rl.prompts names no file"),
        ("local", ["rl.prompts=p"], "profile local has no nemo_rl"),
        ("bare", ["rl.prompts=p"], r"profile bare has no container_image under \[stages.rl\]"),
    ],
)
def test_what_nemo_rl_needs_is_found_before_anything_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, changes: list[str], words: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")
    recipe = override(load_recipe("llama_3_1_8b"), changes)
    with pytest.raises(InputError, match=words):
        submit(recipe, "llama_3_1_8b", changes, rl_stages(tmp_path), tmp_path / "run", profile=profile)
    assert not (tmp_path / "run").exists()


def test_a_secret_that_is_not_set_is_named(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(InputError, match="profile bare passes on HF_TOKEN; set it"):
        submit(recipe, "tiny_dense", [], [Work("blend")], tmp_path, profile="bare")


def test_chain_is_submitted_in_order_and_remembered(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    command(tmp_path / "bin", "sbatch", f'echo "$2" >> {count}; expr 100 + $(wc -l < {count})', monkeypatch)
    run = tmp_path / "run"
    own = tmp_path / "mine.py"
    own.write_text(
        "from prism_nemo.recipe import load_recipe\n\n\ndef recipe():\n    return load_recipe('tiny_dense')\n"
    )
    jobs = submit(recipe, str(own), [], [Work("blend"), Work("midtrain"), Work("mt")], run, profile="local")
    assert [job.job_id for job in jobs] == ["101", "102", "103"]
    assert [entry.job_id for entry in read_jobs(run).values()] == ["101", "102", "103"]
    script = (run / ".slurm" / "mt.sbatch").read_text()
    assert "#SBATCH --dependency=afterok:102\n" in script
    assert "#SBATCH --kill-on-invalid-dep=yes\n" in script
    assert f"{run}/.slurm/recipe/mine.py" in script
    assert (run / ".slurm" / "recipe" / "mine.py").read_text() == own.read_text()
    code = next((run / ".slurm").glob("code-*")) / "code"
    assert (code / "prism_nemo" / "launch" / "submit.py").is_file()
    assert (code / "recipes" / "tiny_dense.py").is_file()


def test_force_removes_what_the_selected_stages_made(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path / "bin", "sbatch", "echo 7", monkeypatch)
    run = tmp_path / "run"
    for name in ("base", "blend"):
        (run / name).mkdir(parents=True)
    submit(recipe, "tiny_dense", [], [Work("blend")], run, profile="local", force=True)
    assert (run / "base").is_dir() and not (run / "blend").exists()


def forced_rl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Submit mt, rl and evaluate with --force over a run that NeMo-RL has worked in; returns that run's folder."""
    monkeypatch.setenv("HF_TOKEN", "x")
    command(tmp_path / "bin", "sbatch", "echo 7", monkeypatch)
    run = tmp_path / "run"
    for name in ("base.nemo_rl", "rl.nemo_rl/checkpoints/step_1000", "rl_base.nemo_rl"):
        (run / name).mkdir(parents=True)
    (run / "rl.nemo_rl" / "ray_job").write_text("5\n20\n")
    recipe = override(load_recipe("llama_3_1_8b"), ["rl.prompts=/data/p.jsonl"])
    submit(recipe, "llama_3_1_8b", [], rl_stages(run), run, profile="enroot", force=True)
    return run


def test_force_removes_the_checkpoints_of_nemo_rl_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last step would be found again, and the old policy exported."""
    command(
        tmp_path / "bin", "squeue", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1', monkeypatch
    )
    run = forced_rl(tmp_path, monkeypatch)
    assert sorted(path.name for path in run.glob("*.nemo_rl")) == ["base.nemo_rl", "rl_base.nemo_rl"]


def test_force_does_not_pull_the_folder_from_under_nemo_rls_own_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path / "bin", "squeue", 'echo "RUNNING|None|1|10:00|n1|"', monkeypatch)
    with pytest.raises(InputError, match=r"NeMo-RL's job 5 of stage rl is still in the queue .*`scancel 5`"):
        forced_rl(tmp_path, monkeypatch)
    assert (tmp_path / "run/rl.nemo_rl/checkpoints/step_1000").is_dir()
    assert not (tmp_path / "run/recipe.yaml").exists()


def test_a_job_that_cannot_be_written_is_found_before_the_first_is_queued(recipe: Recipe, tmp_path: Path) -> None:
    wide = override(recipe, ["parallel.nodes=3"])
    with pytest.raises(InputError, match="2 ranks of stage midtrain are not 3 nodes x 1"):
        submit(wide, "tiny_dense", [], [Work("blend"), Work("midtrain", ranks=2)], tmp_path / "run", profile="local")
    assert not (tmp_path / "run").exists()


def test_a_refused_job_cancels_those_before_it(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(
        tmp_path / "bin",
        "sbatch",
        'case "$2" in *blend*) echo 7;; *) echo "no such account" >&2; exit 1;; esac',
        monkeypatch,
    )
    command(tmp_path / "bin", "scancel", f'echo "$@" > {tmp_path}/cancelled', monkeypatch)
    with pytest.raises(PrismError, match="sbatch refuses stage midtrain: no such account"):
        submit(recipe, "tiny_dense", [], [Work("blend"), Work("midtrain")], tmp_path / "run", profile="local")
    assert (tmp_path / "cancelled").read_text() == "7\n"


def test_files_are_named_from_the_root_for_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job starts in its copy of the code: a relative path would lead nowhere, or elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "x")
    for name in ("p.jsonl", "math.jsonl", "mine.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "weights").mkdir()
    changes = ["rl.prompts=p.jsonl", "data.sources.math=math.jsonl", "data.mixture=mine.yaml", "model.base=weights"]
    recipe = override(load_recipe("llama_3_1_8b"), changes)
    profile = tmp_path / "mine.toml"
    profile.write_text(f'extends = "enroot"\nmounts = ["{tmp_path}:{tmp_path}:ro"]\n')
    work = Work("rl", inputs={"policy": tmp_path / "run" / "mt", "prompts": Path("p.jsonl")})
    submit(recipe, "llama_3_1_8b", changes, [Work("blend"), work], Path("run"), profile=str(profile), dry_run=True)
    _, blend, config, *_ = capsys.readouterr().out.split("# ---- ")
    given = [f"{key}={tmp_path}/{value}" for key, value in (entry.split("=") for entry in changes)]
    assert all(entry in blend for entry in given), blend
    assert f"--prompts {tmp_path}/p.jsonl" in config
    part = recipe.with_(data={"sources": {"chat.ultrachat": "math.jsonl"}, "benchmarks": {"aime24": "p.jsonl"}})
    submit(part, "llama_3_1_8b", [], [Work("blend")], Path("run"), profile=str(profile), dry_run=True)
    told = capsys.readouterr().out
    assert f"data.sources.chat.ultrachat={tmp_path}/math.jsonl data.benchmarks.aime24={tmp_path}/p.jsonl" in told


@pytest.mark.parametrize("mount", ["/elsewhere:/elsewhere", "{folder}:/other", "{folder}/data:{folder}/data"])
def test_a_file_that_the_container_would_not_see_is_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")
    prompts, profile = tmp_path / "p.jsonl", tmp_path / "mine.toml"
    prompts.touch()
    profile.write_text(f'extends = "enroot"\nmounts = ["{mount.format(folder=tmp_path)}"]\n')
    recipe = override(load_recipe("llama_3_1_8b"), [f"rl.prompts={prompts}"])
    with pytest.raises(InputError, match=rf'{prompts} is in no mount of profile mine, .* add "{tmp_path}:{tmp_path}"'):
        submit(recipe, "llama_3_1_8b", [], [Work("blend")], tmp_path / "run", profile=str(profile), dry_run=True)


def submitted(run: Path, **jobs: str) -> None:
    (run / ".slurm" / "logs").mkdir(parents=True)
    (run / ".slurm" / "jobs.json").write_text(
        json.dumps({stage: {"job_id": number, "submitted": 0.0} for stage, number in jobs.items()})
    )


def test_a_run_that_is_queued_is_not_submitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(tmp_path, midtrain="5")
    command(tmp_path / "bin", "squeue", 'echo "RUNNING|None|1|10:00|n1|"', monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["run", "tiny_dense", "seed=2", "--out", str(tmp_path), "--run", "local"])
    assert "already in the queue (job 5, running)" in str(result.exception)
    assert sorted(tmp_path.rglob("*")) == before  # the queued run's recipe and order stand


def test_queue_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "1": "COMPLETED|None|0",
        "2": "PENDING|BeginTime|2",
        "3": "COMPLETING|None|0",
        "4": "CANCELLED|Dependency|0",
    }
    rows["5"] = "TIMEOUT|TimeLimit|0"
    cases = " ".join(f'*=={number}) echo "{row}|1:00|n1|";;'.replace("*==", "--jobs=") for number, row in rows.items())
    command(tmp_path / "bin", "squeue", f'for a in "$@"; do case "$a" in {cases} esac; done', monkeypatch)
    command(tmp_path / "bin", "sacct", 'echo "6|CANCELLED by 0"; echo "8_0|COMPLETED"; echo "8_1|FAILED"', monkeypatch)
    submitted(tmp_path, a="1", b="2", c="3", d="4", e="5", f="6", g="7", h="8")
    states = queue_state(tmp_path)
    words = ["done", "pending", "running", "cancelled", "failed", "cancelled", "unknown", "failed"]
    assert [state.state for state in states.values()] == words
    assert (states["b"].reason, states["b"].restarts) == ("BeginTime", 2)
    assert (states["e"].reason, states["c"].nodes) == ("TIMEOUT", "n1")


def test_no_queue_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert queue_state(tmp_path) == {}
    submitted(tmp_path, a="1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert queue_state(tmp_path)["a"].state == "unknown"


def test_last_lines_are_those_that_tell(tmp_path: Path) -> None:
    submitted(tmp_path, midtrain="9")
    logs = tmp_path / ".slurm" / "logs"
    (logs / "log-x.midtrain_9_0.out").write_text("\x1b[2Kstep 1\nwarning: checkpoint is damaged\n")
    (logs / "log-x.midtrain_9_10.out").write_text("step 9\n\x1b[?25herror: out of paper\nbye\n")
    (logs / "log-x.midtrain_9_2.out").write_text("step 5\n")
    assert last_lines(tmp_path, "midtrain") == ["warning: checkpoint is damaged", "error: out of paper"]
    assert last_lines(tmp_path, "blend") == []


def checkout(root: Path) -> Path:
    (root / "prism_nemo").mkdir(parents=True)
    (root / "prism_nemo" / "a.py").write_text("committed = 1\n")
    (root / ".gitignore").write_text("*.log\n")
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "x"],
    ):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


def test_uncommitted_code_travels_and_ignored_files_do_not(tmp_path: Path) -> None:
    root = checkout(tmp_path / "root")
    before = snapshot(tmp_path / "jobs", root)
    (root / "prism_nemo" / "a.py").write_text("committed = 0\n")
    (root / "prism_nemo" / "new.py").write_text("new = 1\n")
    (root / "prism_nemo" / "x.log").write_text("noise")
    after = snapshot(tmp_path / "jobs", root)
    assert before != after == snapshot(tmp_path / "jobs", root)
    assert (before / "code" / "prism_nemo" / "a.py").read_text() == "committed = 1\n"
    assert (after / "code" / "prism_nemo" / "a.py").read_text() == "committed = 0\n"
    assert sorted(path.name for path in (after / "code" / "prism_nemo").iterdir()) == ["a.py", "new.py"]


def test_without_git_everything_that_stages_read_travels(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("prism_nemo/a.py", "prism_nemo/__pycache__/a.pyc", "recipes/r.py", "data_prep/s.yaml", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    code = snapshot(tmp_path / "jobs", root) / "code"
    copied = sorted(str(path.relative_to(code)) for path in code.rglob("*") if path.is_file())
    assert copied == ["data_prep/s.yaml", "prism_nemo/a.py", "recipes/r.py"]


def test_too_much_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = checkout(tmp_path / "root")
    monkeypatch.setattr("prism_nemo.launch.snapshot.LIMIT", 5)
    with pytest.raises(InputError, match=r"the largest file is .*a\.py"):
        snapshot(tmp_path / "jobs", root)

"""The command line's contract: help is quick and fits a screen, errors are one line, exit codes mean what they say."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prism_nemo.cli.main import app
from prism_nemo.cli.run import run_name

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
GROUPS = [group.name for group in app.registered_groups]


def prism(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "prism_nemo.cli.main", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS + GROUPS)])
def test_help_has_an_example_or_lists_commands_and_fits_a_screen(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], terminal_width=100)
    assert result.exit_code == 0
    assert len(result.output.splitlines()) <= 50
    assert "Example" in result.output or "Commands" in result.output


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "megatron", "numpy")
    code = f"import sys; import prism_nemo.cli.main; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing"], "no recipe 'nothing'"),
        (["run", "tiny_dense", "midtrain.token=1"], "did you mean 'tokens'"),
        (["run", "tiny_dense", "parallel.tensor=3"], "parallel.tensor=3 does not divide"),
        (["run", "tiny_dense", "data.mixture=math_cod"], "math_code"),
        (["run", "tiny_dense", "data.sources.maths=x.jsonl"], "did you mean 'math'"),
        (["run", "tiny_dense", "--from", "export"], "no stage 'export'"),
        (["run", "tiny_dense", "precision=fp8_current"], "precision fp8_current needs a GPU"),
        (["artifact", "show", "nowhere"], "not a finished artifact"),
        (["status", "nowhere"], "holds no run"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = prism(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="a machine with GPUs")
def test_a_recipe_for_gpus_does_not_begin_without_any(tmp_path: Path) -> None:
    result = prism("run", "llama_3_1_8b", cwd=tmp_path)
    assert result.returncode == 2
    assert "needs 128 GPUs, this machine has 0" in result.stderr
    assert "--run PROFILE" in result.stderr
    assert list((tmp_path / "runs").glob("*/*")) == [] if (tmp_path / "runs").exists() else True


def test_nemo_rl_does_not_begin_without_a_cluster(tmp_path: Path) -> None:
    """It was found at its own stage, after the training of its model, and the working directory was hashed for it."""
    result = prism("run", "tiny_dense", "rl.engine=nemo_rl", cwd=tmp_path)
    assert result.returncode == 2
    assert "stage rl runs in NeMo-RL on a cluster: --run PROFILE submits it" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_lists_the_stages_and_writes_nothing(tmp_path: Path) -> None:
    result = prism("run", "tiny_dense", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in ("corpus", "midtrain", "rl_base", "evaluate", "report"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("recipe", "measured"), [("tiny_dense", "loss and needles"), ("granite_3_3_8b", "RULER")])
def test_the_restoration_of_long_context_is_one_command(recipe: str, measured: str, tmp_path: Path) -> None:
    result = prism("run", recipe, "--from", "merge", "--to", "evaluate", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    trained = [f"long_context{variant}{form}" for variant in ("", "_attention") for form in ("", "_hf")]
    assert [row[0] for row in rows] == ["merge", "merge_megatron", *trained, "analysis_long_context", "evaluate"]
    assert f"{measured} by length" in result.stdout


def test_variants_of_a_recipe_have_their_own_folder() -> None:
    assert run_name("tiny", []) == "tiny"
    assert run_name("tiny", ["rl.domains=math,code"]) == "tiny+rl.domains=math_code"
    assert run_name("tiny", ["b=1", "a=x/y"]) == run_name("tiny", ["a=x/y", "b=1"]) == "tiny+a=x_y+b=1"

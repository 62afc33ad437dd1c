"""Utilisations of a measurement enter the plan, and the plan says where its figure is from."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prism_nemo.cli.main import app
from prism_nemo.errors import InputError
from prism_nemo.recipe import load_recipe, override
from prism_nemo.recipe.plan import lines, measured, plan

BF16, FP8 = 0.5, 0.7
"""Of 989 TFLOP/s."""
H200 = "measured on one NVIDIA H200, nvidia_h200.json"


def result(folder: Path, name: str = "nvidia_h200.json", **changes: object) -> Path:
    def step(way: str, share: float, kind: str = "dense") -> dict[str, object]:
        return {"kind": kind, "way": way, "model_flops_per_second": share * 989e12}

    steps = {
        "a bf16": step("bf16", BF16 - 0.1),
        "b bf16": step("bf16", BF16 + 0.1),
        "a plain": step("plain", 0.2),
        "a fp8_current": step("fp8_current", FP8),
        "h bf16": step("bf16", 0.3, "hybrid"),
        "h fp8_current": {"error": "OutOfMemoryError: "},
    }
    machine = {"gpu": "NVIDIA H200", "date": "2026-11-22T10:00:00+00:00"}
    path = folder / name
    path.write_text(json.dumps({"machine": machine, "pico": False, "steps": steps} | changes))
    return path


@pytest.mark.parametrize(
    ("recipe", "changes", "gpu", "share", "source"),
    [
        ("llama_3_1_8b", [], "h200", BF16, H200),
        ("llama_3_1_8b", [], "h100-80gb", BF16, H200),
        ("llama_3_1_8b", ["precision=fp8_current"], "h200", FP8, H200),
        ("llama_3_1_8b", ["precision=fp8_blockwise"], "h200", BF16 * 1.6, f"{H200}, bf16 with an assumed gain of 1.6"),
        ("nemotron_h_8b", [], "h200", 0.3, H200),
        ("nemotron_h_8b", ["precision=fp8_current"], "h200", 0.3 * 1.25, f"{H200}, bf16 with an assumed gain of 1.25"),
        ("llama_3_1_8b", [], "a100-80gb", 0.40, "assumed"),
    ],
)
def test_measured_where_it_was_measured(
    tmp_path: Path, recipe: str, changes: list[str], gpu: str, share: float, source: str
) -> None:
    made = plan(override(load_recipe(recipe), changes), gpu=gpu, measured=result(tmp_path))
    for training in made.trainings:
        assert training.budget.utilisation == pytest.approx(share)
        assert training.budget.utilisation_from == source
    assert f"of the data sheet's {made.gpu.bf16_flops / 1e12:.0f} TFLOP/s ({source})" in "\n".join(lines(made))


def test_a_given_utilisation_comes_first(tmp_path: Path) -> None:
    made = plan(load_recipe("llama_3_1_8b"), utilisation=0.37, measured=result(tmp_path))
    assert made.trainings[0].budget.utilisation == 0.37
    assert "TFLOP/s (given)" in "\n".join(lines(made))


def test_the_latest_result_of_the_checkout_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    assert plan(load_recipe("llama_3_1_8b")).trainings[0].budget.utilisation_from == "assumed"
    result(tmp_path, "older.json")
    result(tmp_path, "newer.json", machine={"gpu": "NVIDIA H100 80GB HBM3", "date": "2026-12-01T00:00:00+00:00"})
    result(tmp_path, "pico.json", pico=True, machine={"gpu": "NVIDIA H200", "date": "2027-01-01T00:00:00+00:00"})
    result(tmp_path, "cpu.json", machine={"gpu": None, "date": "2027-01-01T00:00:00+00:00"})
    (tmp_path / "sandbox.json").write_text('{"cases_per_second": 100}')  # another benchmark's
    (tmp_path / "notes.json").write_text("no JSON at all")
    made = plan(load_recipe("llama_3_1_8b"), gpu="h200").trainings[0].budget
    assert made.utilisation_from == "measured on one NVIDIA H100 80GB HBM3, newer.json"


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"machine": {}}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=r"x\.json is no result of benchmarks/gpu/run\.py"):
            plan(load_recipe("llama_3_1_8b"), measured=tmp_path / "x.json")
    answer = CliRunner().invoke(app, ["plan", "llama_3_1_8b", "--measured", str(result(tmp_path))])
    assert "at 50% of the data sheet's 989 TFLOP/s (measured on one" in answer.output

"""A run with planted movement: distances, active sets and the front are recovered."""

import json

import pytest
import torch

from prism_nemo.analysis.trajectory import find_checkpoints, front_of, measure_trajectory
from prism_nemo.analysis.trajectory_output import analyse_trajectory
from prism_nemo.errors import InputError

from .conftest import save

UP, GATE = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate_proj.weight"


@pytest.fixture
def run(tmp_path):
    """Of 100 weights of size 1: 10, then 20 (the same 10 and others), then 15 of them moved by 1."""
    for step, places in ((10, range(10)), (20, range(20)), (30, range(5, 20))):
        up = torch.ones(100)
        up[list(places)] = 2.0
        save(tmp_path / "run" / "checkpoints" / f"step_{step}", {UP: up, GATE: torch.ones(100)})
    save(tmp_path / "start", {UP: torch.ones(100), GATE: torch.ones(100)})
    return tmp_path / "run"


def test_distance_and_active_sets_are_recovered(run, tmp_path):
    report = measure_trajectory(tmp_path / "start", find_checkpoints(run))
    rows = {row.step: row for row in report.rows if row.name == "mlp.up"}
    assert [rows[step].l2 for step in (10, 20, 30)] == pytest.approx([0.1**0.5, 0.2**0.5, 0.15**0.5])
    assert [rows[step].changed for step in (10, 20, 30)] == pytest.approx([0.10, 0.20, 0.15])
    assert [rows[step].kept for step in (20, 30)] == pytest.approx([1, 15 / 20])
    assert [rows[step].overlap for step in (20, 30)] == pytest.approx([10 / 20, 15 / 20])
    assert rows[10].overlap is None
    assert rows[20].l2_before == pytest.approx((10 / (90 + 4 * 10)) ** 0.5)
    whole = {row.step: row for row in report.rows if row.scope == "total"}
    assert whole[20].changed == pytest.approx(0.10)


def test_the_front_is_where_80_percent_is_first_reached():
    assert front_of("total", "", [(10, 0.4), (20, 0.6), (30, 1.0)]).step == pytest.approx(25)
    assert front_of("total", "", [(10, 0.9), (20, 1.0)]).checkpoint == 10
    assert front_of("total", "", [(10, 0.0)]).step is None
    assert front_of("total", "", [(10, None), (20, 1.0)]).step == pytest.approx(16)


def test_the_artifact_and_its_start(run, tmp_path):
    report = analyse_trajectory(tmp_path / "out", run, start=tmp_path / "start")
    assert [front for front in report["fronts"] if front["scope"] == "total"]
    assert (tmp_path / "out" / "figures" / "trajectory.svg").is_file()
    later = analyse_trajectory(tmp_path / "later", run)
    assert later["steps"] == [20, 30]
    assert "earliest checkpoint" in json.dumps(later["notes"])


def test_inf_nan_and_zero_tensors_are_noted_at_whatever_checkpoint(run, tmp_path):
    for folder in (tmp_path / "start", *find_checkpoints(run).values()):
        broken = torch.ones(100)
        broken[0] = float("nan") if folder.name == "step_20" else 1.0
        save(folder, {UP: torch.ones(100), GATE: broken, "model.norm.weight": torch.zeros(4)})
    notes = measure_trajectory(tmp_path / "start", find_checkpoints(run)).notes
    assert sorted(notes) == sorted(
        [
            "step 10 -> step 20, start -> step 20, step 20 -> step 30: 1 elements are inf or NaN at one end, left out",
            "start -> step 10, step 10 -> step 20, start -> step 20 and 2 more: 1 tensors are all zeros at the start: "
            "no relative L2",
        ]
    )


def test_beside_the_papers_steps(run, tmp_path):
    (run / "checkpoints" / "step_30").rename(run / "checkpoints" / "step_960")
    report = analyse_trajectory(tmp_path / "out", run, start=tmp_path / "start", paper="nemotron_h_8b")
    rows = {row["benchmark"]: row for row in report["paper"]}
    assert rows["changed_1pct_at_step_20"]["paper"] == 1.5
    assert rows["changed_1pct_at_step_20"]["ours"] == pytest.approx(10)
    assert rows["changed_1pct_at_step_960"]["ours"] == pytest.approx(7.5)
    assert "step_of_80_percent_attention" not in rows  # this run has none


def test_a_run_without_checkpoints_is_named(tmp_path):
    with pytest.raises(InputError, match="has 0 checkpoints"):
        find_checkpoints(tmp_path)

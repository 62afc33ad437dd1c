"""Points between checkpoints: the right weights, one model at a time, resumable, shared with other evaluations."""

import json

import pytest
import torch

from prism_nemo.analysis import landscape_output as output
from prism_nemo.analysis.landscape import GRID, PATH, PassRate, grid_weights, measure_landscape, path_weights
from prism_nemo.analysis.landscape_output import analyse_landscape, landscape_output
from prism_nemo.analysis.output import write
from prism_nemo.errors import InputError
from prism_nemo.evaluation.benchmark import file_benchmarks

from .conftest import load, save


@pytest.fixture
def corners(tmp_path):
    """Three models of one weight pair: base (0, 0), MT (1, 0), RL (1, 1)."""
    config = {"model_type": "llama"}
    return [
        save(tmp_path / name, {"x": torch.tensor(values, dtype=torch.float64)}, config)
        for name, values in (("base", [0.0, 0.0]), ("mt", [1.0, 0.0]), ("rl", [1.0, 1.0]))
    ]


class Scorer:
    """Reads the weights it is given: value = first weight, low = second."""

    def __init__(self, die_at: int = -1) -> None:
        self.seen: list[str] = []
        self.die_at = die_at

    def __call__(self, folder):
        if len(self.seen) == self.die_at:
            raise KeyboardInterrupt
        self.seen.append(folder.name)
        first, second = load(folder)["x"].tolist()
        return PassRate(value=first, low=second, high=1, questions=1, samples=1, median_tokens=1)


def test_the_papers_points_are_merged_and_scored(corners, tmp_path):
    scorer = Scorer()
    report = measure_landscape(*corners, scorer, asked={"k": 1}, work=tmp_path / "work")
    path = [point for point in report.points if point.kind == "path"]
    assert [point.x for point in path] == list(PATH)
    for point in path:  # base + a (MT - base) + b (RL - MT)
        a, b = min(point.x, 1), max(point.x - 1, 0)
        assert point.rate.value == pytest.approx(a, abs=1e-11)
        assert point.rate.low == pytest.approx(b, abs=1e-11)
    for point in report.points[len(PATH) :]:  # MT + x (RL - MT) + y (base - MT)
        assert point.rate.value == pytest.approx(1 - point.y, abs=1e-11)
        assert point.rate.low == pytest.approx(point.x, abs=1e-11)
        assert sum(point.weights) == pytest.approx(1)
    assert len(report.points) == len(PATH) + len(GRID) ** 2
    assert {name for name in scorer.seen if not name.startswith("landscape_")} == {"base", "mt", "rl"}
    assert not list((tmp_path / "work").glob("*.model"))


def test_a_stopped_run_goes_on_with_the_next_point(corners, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        measure_landscape(*corners, Scorer(die_at=4), asked={"k": 1}, work=tmp_path / "work", grid=())
    again = Scorer()
    report = measure_landscape(*corners, again, asked={"k": 1}, work=tmp_path / "work", grid=())
    assert len(again.seen) == len(PATH) - 4
    assert [point.rate.value for point in report.points][:5] == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2, 2 / 3])
    other = Scorer()
    measure_landscape(*corners, other, asked={"k": 2}, work=tmp_path / "work", grid=())
    assert len(other.seen) == len(PATH)  # another question is another landscape


def test_weights_of_the_axes():
    assert path_weights(0) == (1, 0, 0)
    assert path_weights(1) == (0, 1, 0)
    assert path_weights(2) == (0, 0, 1)
    assert path_weights(1.25) == (0, 0.75, 0.25)
    assert grid_weights(0, 0) == (0, 1, 0)
    assert grid_weights(1, 0) == (0, 0, 1)
    assert grid_weights(0, 1) == (1, 0, 0)
    with pytest.raises(InputError, match="path position 3"):
        path_weights(3)


def test_tables_figures_and_the_papers_curve(corners, tmp_path):
    report = measure_landscape(*corners, Scorer(), asked={}, work=tmp_path / "work")
    out = tmp_path / "out"
    out.mkdir()
    write(out, landscape_output(report, paper="granite-3.3-8b"))
    rows = json.loads((out / "report.json").read_text())["paper"]
    assert [(row["position"], row["paper"]) for row in rows][:2] == [(0, 17.0), (1 / 6, 32.3)]
    assert len(rows) == len(PATH)
    assert {path.name for path in (out / "figures").iterdir()} == {"path.svg", "path.png", "plane.svg", "plane.png"}
    assert (out / "tables" / "grid.csv").read_text().count("\n") == 26


def test_the_papers_curve_is_left_out_beside_other_questions(corners, tmp_path, monkeypatch):
    row = {"id": "q", "prompt": "1+1=", "answer": "2", "domain": "math", "source": "test", "licence": "CC0-1.0"}
    (tmp_path / "sums.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(output, "store_scorer", lambda *_, **__: Scorer())
    points = dict(zip(("base", "mt", "rl"), corners, strict=True))
    asked = file_benchmarks(tmp_path / "sums.jsonl")
    report = analyse_landscape(tmp_path / "out", points, asked, tmp_path, k=1, grid=(), paper="granite-3.3-8b")
    assert report["paper"] == []
    assert "MATH500 alone" in report["notes"][-1]
    assert "paper, granite" not in (tmp_path / "out" / "figures" / "path.svg").read_text()
    with pytest.raises(InputError, match="do not cover"):
        analyse_landscape(tmp_path / "other", points, asked, tmp_path, k=1, grid=(), paper="gpt")

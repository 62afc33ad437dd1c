"""The table of `prism status`: the stage at work is in sight in any window, an error is there in full."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from prism_nemo.cli.main import app
from prism_nemo.cli.status import _fitting, _table
from prism_nemo.recipe import load_recipe
from prism_nemo.stages.chain import chain
from prism_nemo.stages.status import StageLine, describe_run

NAMES = [stage.name for stage in chain(load_recipe("tiny_dense"), Path("runs/tiny_dense"))]


def line(name: str, state: str, **more) -> StageLine:
    known = {"seconds": 7_500.0, "done": 0.0, "total": 0.0, "seconds_left": 0.0, "message": "loss 2.1, 9,000 tokens/s"}
    return StageLine(name=name, state=state, **(known | more))


def shown(lines: list[StageLine], height: int | None, width: int = 80) -> list[str]:
    """As `--watch` shows it in a window of this height, or whole."""
    console, run = Console(file=io.StringIO(), width=width, height=height), Path("/runs/tiny_dense")
    console.print(_fitting(run, lines, console) if height else _table(run, lines, 0, len(lines)))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("height", [20, 24, 60])
@pytest.mark.parametrize("at", [0, 3, 14, len(NAMES) - 1])
def test_the_stage_at_work_is_in_sight_whatever_the_window(height: int, at: int) -> None:
    work = {"done": 1200.0, "total": 4101.0, "seconds_left": 3_725.0, "warning": "warning: " + 9 * "the loss jumped "}
    lines = [line(name, "done" if k < at else "to do") for k, name in enumerate(NAMES)]
    lines[at] = line(NAMES[at], "running", **work)
    table = shown(lines, height)
    assert len(table) < height
    (row,) = [text for text in table if f" {NAMES[at]} " in text and "running" in text]
    assert "2 h 5 min" in row
    assert "1,200/4,101" in row
    assert "1 h 2 min left" in " ".join(" ".join(table).split())
    listed = [name for name in NAMES if any(f" {name} " in text for text in table)]
    assert listed == NAMES[NAMES.index(listed[0]) :][: len(listed)]
    hidden = len(NAMES) - len(listed)
    assert (hidden == 0) == (height == 60)


def test_an_error_is_printed_in_full() -> None:
    error = "parallel.tensor=3 does not divide the 4 attention heads; choose one that does, such as parallel.tensor=2"
    table = " ".join(shown([line("midtrain", "failed", message=error)], None))
    assert error in " ".join(table.split())


def test_watching_needs_a_terminal(tmp_path: Path) -> None:
    describe_run(tmp_path, "", ["corpus"])
    done = CliRunner().invoke(app, ["status", str(tmp_path), "--watch"])
    assert "needs a terminal" in str(done.exception)
    assert CliRunner().invoke(app, ["status", str(tmp_path)]).exit_code == 0

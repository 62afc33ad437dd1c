"""The screen of a run: one bar below a line per finished stage; time left counts from where this process began."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from prism_nemo.cli.screen import Bars, Lines, screen
from prism_nemo.stages.stage import Record, Stage

STAGE = Stage(name="midtrain", does="mid-training", run=lambda out, progress: None)


def test_bars_count_from_the_first_step_of_this_process() -> None:
    clock = [0.0]
    progress = Progress(get_time=lambda: clock[0], speed_estimate_period=600)
    bars = Bars(progress)
    bars.start(STAGE, 1, 1)
    for step, seconds in ((5000, 10.0), (5001, 130.0), (5002, 250.0)):  # resumed at 5000, two minutes a step
        clock[0] = seconds
        bars(step, 10_000)
    assert progress.tasks[0].time_remaining == 120 * (10_000 - 5002)


def test_lines_do_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    monkeypatch.setattr("prism_nemo.cli.screen.time.monotonic", lambda: clock[0])
    lines = Lines()
    lines.start(STAGE, 1, 1)
    for step, seconds in ((490, 10.0), (500, 20.0)):
        clock[0] = seconds
        lines(step, 1000)
    assert "[1/1] midtrain: 500/1,000, 8 min 20 s left" in capsys.readouterr().out


def test_on_a_terminal_a_finished_stage_leaves_one_line_and_only_the_one_at_work_has_a_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with screen() as shown:
        assert isinstance(shown, Bars)
        for number in range(1, 41):  # more stages than a window has lines
            shown.start(STAGE, number, 41)
            shown(3, 4, "loss 2.500, 9,000 tokens/s and more than eighty columns have room for")
            shown.end(Record(name="midtrain", state="done", seconds=7_500.0, message="loss 2.500, 9,000 tokens/s"))
            assert shown._progress.tasks == []
        shown.skip(STAGE, 41, 41)
    text = Console().render_str(out.getvalue()).plain
    assert text.count("2 h 5 min  loss 2.500, 9,000 tokens/s") == 40
    assert "41/41 midtrain" in text
    assert "up to date" in text

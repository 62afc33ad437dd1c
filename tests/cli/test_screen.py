"""The screen of a run: a resumed stage's time left counts from where it began."""

from rich.progress import Progress

from prism_nemo.cli.screen import Bars, Lines
from prism_nemo.stages.stage import Stage

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


def test_lines_do_too(monkeypatch, capsys) -> None:
    clock = [0.0]
    monkeypatch.setattr("prism_nemo.cli.screen.time.monotonic", lambda: clock[0])
    lines = Lines()
    lines.start(STAGE, 1, 1)
    for step, seconds in ((490, 10.0), (500, 20.0)):
        clock[0] = seconds
        lines(step, 1000)
    assert "500/1000 , 500 s left" in capsys.readouterr().out

"""What a run shows: on a terminal one calm screen, a line per finished stage and a bar for the one at work; elsewhere
one line per event."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from prism_nemo.stages.run import Screen
from prism_nemo.stages.stage import Record, Stage


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """The screen that fits where the output goes."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    whole, rest = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}", table_column=whole),
        BarColumn(bar_width=12, table_column=whole),
        MofNCompleteColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("left", table_column=whole),
        TextColumn("{task.fields[text]}", table_column=rest),
    )
    with Progress(*columns, expand=True, speed_estimate_period=600) as progress:  # steps may be minutes apart
        yield Bars(progress)


class Lines(Screen):
    """One line when a stage starts and ends, and one at every quarter in between."""

    def __init__(self) -> None:
        self._label, self._quarter = "", 0
        self._began: tuple[float, float] | None = None
        """When this process first heard of the stage, and how far it was then: a resumed one is on its way already."""

    def start(self, stage: Stage, number: int, count: int) -> None:
        self._label, self._quarter, self._began = f"[{number}/{count}] {stage.name}", 0, None
        self._say(stage.does)

    def skip(self, stage: Stage, number: int, count: int) -> None:
        self._label = f"[{number}/{count}] {stage.name}"
        self._say("up to date")

    def __call__(self, done: float, total: float, text: str = "") -> None:
        quarter = int(4 * done / total) if total else 0
        if self._began is None:
            self._began, self._quarter = (time.monotonic(), done), quarter
        if quarter > self._quarter and done < total:
            self._quarter = quarter
            spent, gained = time.monotonic() - self._began[0], done - self._began[1]
            left = _duration(spent * (total - done) / gained)
            self._say(", ".join(part for part in (f"{done:,.10g}/{total:,.10g}", text, f"{left} left") if part))

    def end(self, record: Record) -> None:
        self._say(f"done in {_duration(record.seconds)} {record.message}".rstrip())

    def _say(self, text: str) -> None:
        print(f"{self._label}: {text}", flush=True)


class Bars(Screen):
    """The bar of the stage that works below a line for each that is done: any window is high enough for it."""

    def __init__(self, progress: Any) -> None:
        self._progress, self._task, self._label = progress, None, ""

    def start(self, stage: Stage, number: int, count: int) -> None:
        self._label = f"{number:2d}/{count} {stage.name}"
        self._task = self._progress.add_task(self._label, total=None, text=stage.does)

    def skip(self, stage: Stage, number: int, count: int) -> None:
        self._say(f"{number:2d}/{count} {stage.name}", "up to date", "")

    def __call__(self, done: float, total: float, text: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, text=text)

    def end(self, record: Record) -> None:
        self._progress.remove_task(self._task)
        self._say(self._label, _duration(record.seconds), record.message)

    def _say(self, label: str, time_: str, text: str) -> None:
        from rich.text import Text

        line = Text(f"{label:32s} {time_:>12s}  {text}", no_wrap=True, overflow="ellipsis")
        self._progress.console.print(line)


def _duration(seconds: float) -> str:
    from prism_nemo.report.words import duration

    return duration(seconds)

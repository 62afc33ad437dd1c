"""What a run shows: on a terminal one calm screen with bars and time left, elsewhere one line per event."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from prism_nemo.stages.run import Screen
from prism_nemo.stages.stage import Record, Stage


@contextlib.contextmanager
def screen(title: str) -> Iterator[Screen]:
    """The screen that fits where the output goes."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:28s}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, speed_estimate_period=600) as progress:  # steps may be minutes apart
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
            self._say(f"{done:g}/{total:g} {text}, {spent * (total - done) / gained:.0f} s left")

    def end(self, record: Record) -> None:
        self._say(f"done in {record.seconds:.1f} s {record.message}".rstrip())

    def _say(self, text: str) -> None:
        print(f"{self._label}: {text}", flush=True)


class Bars(Screen):
    """A bar per stage."""

    def __init__(self, progress: Any) -> None:
        self._progress, self._task = progress, None

    def start(self, stage: Stage, number: int, count: int) -> None:
        self._task = self._progress.add_task(f"{number:2d}/{count} {stage.name}", total=None, text=stage.does)

    def skip(self, stage: Stage, number: int, count: int) -> None:
        self._progress.add_task(f"{number:2d}/{count} {stage.name}", total=1, completed=1, text="up to date")

    def __call__(self, done: float, total: float, text: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, text=text)

    def end(self, record: Record) -> None:
        text = f"{record.seconds:.1f} s  {record.message}".strip()
        total = record.total or 1
        self._progress.update(self._task, completed=total, total=total, text=text)

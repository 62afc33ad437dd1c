"""`prism status`: what ran, what runs, what is left."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import typer

QUIET = ("done", "to do", "pending")
"""States whose note has one line."""
FEWEST = 3
"""Stages that are shown however low the window is."""


def status(
    folder: Path = typer.Argument(None, help="A run's folder; default: the newest below runs/."),
    json_output: bool = typer.Option(False, "--json", help="For a program."),
    watch: bool = typer.Option(False, "--watch", help="Refresh until all is done, or Ctrl-C."),
) -> None:
    """What ran, what runs, what is left.  Example: prism status runs/tiny_dense --watch"""
    from rich.console import Console

    from prism_nemo.stages.status import overview

    run, console = (folder or _newest()).resolve(), Console()
    lines = overview(run)
    if json_output:
        typer.echo(json.dumps([dataclasses.asdict(line) for line in lines], indent=1))
    elif watch:
        _watch(run, console)
    else:
        console.print(_table(run, lines, 0, len(lines)))


def _watch(run: Path, console: Any) -> None:
    from rich.live import Live

    from prism_nemo.errors import InputError
    from prism_nemo.stages.status import overview

    if not console.is_terminal:
        raise InputError("--watch needs a terminal; without it the table is printed once")
    lines = overview(run)
    with Live(_fitting(run, lines, console), console=console, auto_refresh=False) as live:
        while not all(line.state == "done" for line in lines):
            time.sleep(1)
            lines = overview(run)
            live.update(_fitting(run, lines, console), refresh=True)


def _newest() -> Path:
    from prism_nemo.errors import InputError

    found = sorted(Path("runs").glob("*/recipe.yaml"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError("no run below runs/; give the folder of one: prism status DIR")
    return found[-1].parent


def _fitting(run: Path, lines: list, console: Any) -> Any:
    """The table of as many stages, around the first that is not done, as the window has lines for."""
    at_work = next((number for number, line in enumerate(lines) if line.state != "done"), len(lines))
    room = len(lines)
    while True:
        first = max(0, min(at_work - room // 2, len(lines) - room))
        table = _table(run, lines, first, first + room)
        excess = len(console.render_lines(table)) - console.height + 1  # the cursor stands below
        if excess <= 0 or room <= FEWEST:
            return table
        room = max(room - excess, FEWEST)


def _table(run: Path, lines: list, first: int, last: int) -> Any:
    """The stages from `first` on and before `last`; how many are not shown stands below."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from prism_nemo.report.words import duration

    parts = [f"{first} done before" if first else "", f"{len(lines) - last} more after" if last < len(lines) else ""]
    hidden = ", ".join(part for part in parts if part) or None
    table = Table(box=box.SIMPLE_HEAD, title=str(run), title_justify="left", caption=hidden)
    for column in ("stage", "state", "time"):
        table.add_column(column, no_wrap=True)
    table.add_column("note")
    for line in lines[first:last]:
        note = Text(_note(line), no_wrap=line.state in QUIET, overflow="ellipsis" if line.state in QUIET else "fold")
        table.add_row(line.name, line.state, duration(line.seconds) if line.seconds else "", note)
    return table


def _note(line: Any) -> str:
    from prism_nemo.report.words import duration

    going = line.total and line.state != "done"
    parts = [f"{line.done:,.10g}/{line.total:,.10g}" if going else ""]
    parts += [f"{duration(line.seconds_left)} left" if line.seconds_left else "", line.message]
    return "\n".join(part for part in (", ".join(part for part in parts if part), line.warning) if part)

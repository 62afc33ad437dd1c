"""`prism status`: what ran, what runs, what is left."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import typer


def status(
    folder: Path = typer.Argument(None, help="A run's folder; default: the newest below runs/."),
    json_output: bool = typer.Option(False, "--json"),
    watch: bool = typer.Option(False, "--watch", help="Refresh until interrupted."),
) -> None:
    """What ran, what runs, what is left.  Example: prism status runs/tiny_dense --watch"""
    from rich.console import Console
    from rich.live import Live

    from prism_nemo.stages.status import overview

    run = (folder or _newest()).resolve()
    if json_output:
        typer.echo(json.dumps([dataclasses.asdict(line) for line in overview(run)], indent=1))
        return
    if not watch:
        Console().print(_table(run, overview(run)))
        return
    with Live(_table(run, overview(run)), refresh_per_second=1) as live:
        while True:
            time.sleep(1)
            live.update(_table(run, overview(run)))


def _newest() -> Path:
    from prism_nemo.errors import InputError

    found = sorted(Path("runs").glob("*/recipe.yaml"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError("no run below runs/; give the folder of one: prism status DIR")
    return found[-1].parent


def _table(run: Path, lines: list) -> Any:
    from rich.table import Table

    table = Table("stage", "state", "time", "progress", "note", title=str(run))
    for line in lines:
        seconds = f"{line.seconds:.0f} s" if line.seconds else ""
        progress = f"{line.done:g}/{line.total:g}" if line.total and line.state == "running" else ""
        left = f", {line.seconds_left:.0f} s left" if line.seconds_left else ""
        note = "\n".join(part for part in (line.message[:80], line.warning[:160]) if part)
        table.add_row(line.name, line.state, seconds, progress + left, note)
    return table

"""The four arms, and long context by length, for a terminal, as plain text."""

import io
from collections.abc import Sequence

from prism_nemo.report.blocks import Table
from prism_nemo.report.compare import names
from prism_nemo.report.long_context import by_length
from prism_nemo.report.outcome import four_arms, protocol_line, verdict_counts
from prism_nemo.report.run import Run

WIDTH = 118


def terminal_table(runs: Sequence[Run]) -> str:
    """Per run: the four arms, long context by length where it was measured, and what shows of the paper's claims."""
    return "\n".join(_one(run, name) for run, name in zip(runs, names(runs), strict=True))


def _one(run: Run, name: str) -> str:
    lengths = _lengths(run, name)
    if not run.arms:
        return f"{lengths}{name}: no scores, the stage `evaluate` has not run\n"
    claims = f"the paper's claims in this run: {verdict_counts(run)}"
    arms = _drawn(four_arms(run), f"{name}: percent right [95 % interval]")
    return f"{arms}{protocol_line(run)}\n\n{lengths}{claims}\n"


def _lengths(run: Run, name: str) -> str:
    if "long_context" not in run.analyses:
        return ""
    table = by_length(run)
    return _drawn(table, f"{name}: {table.title}")


def _drawn(table: Table, title: str) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn

    drawn = Drawn(title=title.replace("[", r"\["), box=box.SIMPLE_HEAD, title_justify="left")
    for number, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if number < table.text_columns else "right", no_wrap=True)
    for row in table.cells:
        drawn.add_row(*(cell.text.replace("[", r"\[") for cell in row))
    out = io.StringIO()
    Console(file=out, width=WIDTH, no_color=True, force_terminal=False).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"

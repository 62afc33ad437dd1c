"""Tables written for the terminal, Markdown, JSON and HTML, from one and the same content."""

import html
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prism_nemo.evaluation.tables import Table

UNLIMITED = 1 << 14
"""Columns of an output that is no terminal."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em; }
section { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ccc; padding: 0.3em 0.7em; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid; }
.key { text-align: left; }
ul { color: #555; font-size: 90%; }
"""


def to_markdown(tables: Sequence[Table]) -> str:
    """Markdown tables with their titles and notes."""
    return "\n".join(map(_markdown, tables))


def _markdown(table: Table) -> str:
    cells = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in (table.columns, *table.rows)]
    rule = ["---" if number < table.keys else "---:" for number in range(len(table.columns))]
    lines = [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
    return "\n".join([f"## {table.title}", "", *lines, "", *(f"- {note}" for note in table.notes)]) + "\n"


def to_html(tables: Sequence[Table]) -> str:
    """A page of its own; everything from outside is escaped."""
    head = f'<meta charset="utf-8"><title>{html.escape(tables[0].title)}</title><style>{STYLE}</style>'
    body = "".join(map(_section, tables))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}</body></html>\n'


def _section(table: Table) -> str:
    head = "".join(_cell("th", name, number < table.keys) for number, name in enumerate(table.columns))
    rows = ["".join(_cell("td", cell, number < table.keys) for number, cell in enumerate(row)) for row in table.rows]
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in table.notes)
    return (
        f"<section><h2>{html.escape(table.title)}</h2>\n<table><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table>\n<ul>{notes}</ul></section>\n"
    )


def _cell(tag: str, text: str, key: bool) -> str:
    kind = ' class="key"' if key else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"


def to_json(tables: Sequence[Table]) -> str:
    """The records of one table as an object, of several as a list; no NaN: what is not defined is null."""
    found = [{"title": table.title, "notes": table.notes, "records": _nullable(table.records)} for table in tables]
    return json.dumps(found[0] if len(found) == 1 else found, indent=1) + "\n"


def _nullable(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _nullable(entry) for key, entry in value.items()}
    return [_nullable(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def to_terminal(tables: Sequence[Table], width: int | None = None) -> str:
    """The tables drawn; columns beyond `width` (default the terminal's) follow below with the row's keys repeated."""
    width = width or shutil.get_terminal_size((UNLIMITED, 1)).columns
    return "\n".join(_terminal(table, width) for table in tables)


def _terminal(table: Table, width: int) -> str:
    import rich.console

    console = rich.console.Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(table.title, style="bold", markup=False)
        for columns in _blocks(table, width):
            console.print(_drawn(table, columns))
        for note in table.notes:
            console.print(note, markup=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _blocks(table: Table, width: int) -> Iterator[list[int]]:
    """Columns that fit side by side, the keys first in each block."""
    keys = list(range(table.keys))
    block = keys
    for column in range(table.keys, len(table.columns)):
        if block != keys and sum(_width(table, number) for number in [*block, column]) > width:
            yield block
            block = keys
        block = [*block, column]
    yield block


def _width(table: Table, column: int) -> int:
    from rich.cells import cell_len

    return max(cell_len(row[column]) for row in (table.columns, *table.rows)) + 3


def _drawn(table: Table, columns: Sequence[int]) -> Any:
    import rich.box
    import rich.markup
    import rich.table

    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for number in columns:
        side = "left" if number < table.keys else "right"
        drawn.add_column(rich.markup.escape(table.columns[number]), justify=side, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows:
        drawn.add_row(*(rich.markup.escape(row[number]) for number in columns))
    return drawn


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "terminal": to_terminal,
    "markdown": to_markdown,
    "json": to_json,
    "html": to_html,
}
ENDINGS = {".md": "markdown", ".json": "json", ".html": "html"}
"""What a file's name asks for where no format is."""

"""An analysis as an artifact: report.json, tables (CSV and Parquet), figures (SVG and PNG), section.html."""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_nemo.analysis.paper import paper_rows
from prism_nemo.artifacts import Request, is_up_to_date, publish

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What an analysis has to say, before it is written."""

    title: str
    report: Mapping[str, Any]
    """Everything measured, JSON values."""
    tables: Mapping[str, Sequence[Row]]
    """Name -> rows with equal keys and scalar values."""
    draw: Callable[[Path], list[str]]
    """Writes the figures into a folder; returns their names in the order of the page."""
    shown: Sequence[str]
    """Tables that the HTML section shows."""
    paper: Sequence[Row] = field(default_factory=tuple)
    """Ours beside the paper's, where the paper has the number."""
    notes: Sequence[str] = field(default_factory=tuple)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """A few headline figures for the manifest."""


def produce(
    out: Path, analysis: str, parameters: Row, inputs: Mapping[str, Path], make: Callable[[], Output], *, force: bool
) -> dict[str, Any]:
    """Make the artifact at `out` unless it stands already; returns its report.

    Raises InputError when `out` holds something else and `force` is not given, and for a `paper` among the parameters
    that the paper's analyses do not cover.
    """
    if parameters.get("paper"):
        paper_rows(parameters["paper"], ())  # an unknown one is found before the work
    request = Request(kind="analysis", parameters={"analysis": analysis, **parameters}, inputs=inputs)
    if not is_up_to_date(out, request, force=force):
        with publish(out, request) as draft:
            output = make()
            write(draft.path, output)
            draft.metrics.update(output.metrics)
    return dict(json.loads((out / "report.json").read_text()))


def write(folder: Path, output: Output) -> None:
    """All files of an analysis."""
    report = {**output.report, "paper": list(output.paper)}
    (folder / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    tables = {**output.tables, **({"paper": output.paper} if output.paper else {})}
    (folder / "tables").mkdir(exist_ok=True)
    for name, rows in tables.items():
        write_table(folder / "tables" / name, rows)
    figures = output.draw(folder / "figures")
    (folder / "section.html").write_text(_section(folder, output, tables, figures))


def write_table(stem: Path, rows: Sequence[Row]) -> None:
    """STEM.csv and STEM.parquet."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table = pa.Table.from_pylist([dict(row) for row in rows])
    pyarrow.csv.write_csv(table, stem.with_suffix(".csv"))
    pyarrow.parquet.write_table(table, stem.with_suffix(".parquet"))


def _section(folder: Path, output: Output, tables: Mapping[str, Sequence[Row]], figures: Sequence[str]) -> str:
    parts = [f"<section><h2>{html.escape(output.title)}</h2>"]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in output.notes]
    for name in figures:
        svg = (folder / "figures" / f"{name}.svg").read_text()
        parts.append(f"<figure>{svg[svg.index('<svg') :]}</figure>")
    for name in [*output.shown, *(["paper"] if output.paper else [])]:
        heading = "Ours beside the paper's" if name == "paper" else name.capitalize()
        parts.append(f"<h3>{heading}</h3>{html_table(tables[name])}")
    return "\n".join([*parts, "</section>\n"])


def html_table(rows: Sequence[Row]) -> str:
    """Rows as an HTML table; numbers with four significant digits."""
    if not rows:
        return "<p>empty</p>"
    head = "".join(f"<th>{html.escape(str(key))}</th>" for key in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row.values())}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))

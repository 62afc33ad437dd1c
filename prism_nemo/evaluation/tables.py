"""Tables of scores, written for the terminal, Markdown, JSON and HTML from one and the same content."""

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism_nemo.evaluation.compare import Cell, Comparison
from prism_nemo.evaluation.paper import Printed
from prism_nemo.evaluation.retention import Retained
from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.statistics import Estimate

INTERVAL = "Brackets: 95 % intervals over questions (bootstrap; Wilson where all questions agree)."
SCORE_COLUMNS = (
    "model",
    "benchmark",
    "avg@k %",
    "k",
    "pass %",
    "maj %",
    "median tokens",
    "cut off %",
    "no answer %",
    "timeout / error %",
    "<think> %",
    "nll right / wrong",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a table says, in words and numbers; `records` is the same for programs."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    records: Any
    """Plain values for JSON, fractions of 1, without rounding."""


def score_table(scores: Sequence[Score]) -> Table:
    """All there is to know about each score."""
    from prism_nemo.evaluation.scoring import as_record

    rows = [
        (
            score.name,
            score.benchmark,
            _score(score.avg) + ("" if score.complete else f" ({score.samples}/{score.questions * score.k})"),
            str(score.k),
            " ".join(f"@{k} {_percent(value)}" for k, value in score.pass_at.items()) or "-",
            _percent(score.majority),
            f"{score.median_tokens:,.0f}",
            _percent(score.truncated),
            _percent(score.no_answer),
            _percent(score.timeouts) + " / " + _percent(score.errors),
            _percent(score.think_format),
            f"{_number(score.nll_correct)} / {_number(score.nll_incorrect)}",
        )
        for score in scores
    ]
    notes = [INTERVAL, "nll: mean negative log-probability of sampled tokens at temperature 1, nats."]
    if not all(score.complete for score in scores):
        notes.append("(n/m): only n of m samples are in the store; the score is of those.")
    notes += [f"{name}: {', '.join(backends)}" for name, backends in _backends(scores).items()]
    return Table(
        title="Scores",
        columns=SCORE_COLUMNS,
        rows=tuple(rows),
        notes=tuple(notes),
        records=[as_record(score) for score in scores],
    )


def comparison_table(comparison: Comparison) -> Table:
    """Scores of the first model, and of every other its score and its paired difference."""
    base, *others = comparison.models
    columns = ["benchmark", f"{base} %"]
    for name in others:
        columns += [f"{name} %", "difference"]
    rows = []
    for label, cells in comparison.rows.items():
        row = [label, _incomplete(_score(cells[base].score), cells[base])]
        for name in others:
            row += [_incomplete(_score(cells[name].score), cells[name]), _difference(cells[name])]
        rows.append(tuple(row))
    notes = [INTERVAL, f"Differences to {base} are paired by question; * excludes 0."]
    notes += [f"{label}: {members}" for label, members in _panels(comparison).items()]
    notes += [f"{name}: {protocol}" for name, protocol in comparison.protocols.items()]
    if any(not cell.complete for cells in comparison.rows.values() for cell in cells.values()):
        notes.append("!: not all samples are there yet.")
    return Table(
        title=f"Compared with {base}",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(notes),
        records=_comparison_record(comparison),
    )


def paper_table(comparison: Comparison, printed: Mapping[str, Mapping[str, Printed]]) -> Table:
    """Ours, the paper's, the difference: `printed` maps a model to the paper's numbers (percent)."""
    rows, records = [], []
    for label, cells in comparison.rows.items():
        for name in comparison.models:
            theirs = printed.get(name, {}).get(label)
            if theirs is None:
                continue
            ours = cells[name].score
            inside = ours.low * 100 <= theirs.value <= ours.high * 100
            rows.append(
                (
                    name,
                    label,
                    _incomplete(_score(ours), cells[name]),
                    f"{theirs.value:.2f}",
                    f"{ours.value * 100 - theirs.value:+.2f}",
                    "yes" if inside else "no",
                    theirs.table + (f" ({theirs.note})" if theirs.note else ""),
                )
            )
            records.append(
                {
                    "model": name,
                    "benchmark": label,
                    "ours": _plain(ours),
                    "paper_percent": theirs.value,
                    "difference_percent": ours.value * 100 - theirs.value,
                    "inside_interval": inside,
                    "table": theirs.table,
                    "note": theirs.note,
                }
            )
    return Table(
        title="Against the paper",
        columns=("model", "benchmark", "ours %", "paper's %", "difference", "inside our interval", "where"),
        rows=tuple(rows),
        notes=(INTERVAL, "The paper prints no intervals; its own noise is not in ours."),
        records=records,
    )


def steps_table(chosen: Mapping[str, Mapping[str, tuple[int, float]]]) -> Table:
    """The scores of a run under each way of choosing a step, labelled."""
    names = list(next(iter(chosen.values())))
    rows = [
        (label, *(f"{_percent(found[name][1])} (step {found[name][0]})" if name in found else "-" for name in names))
        for label, found in chosen.items()
    ]
    records = {
        label: {name: {"step": step, "score": value} for name, (step, value) in found.items()}
        for label, found in chosen.items()
    }
    return Table(
        title="Steps of a run",
        columns=("chosen", *names),
        rows=tuple(rows),
        notes=("Maxima per benchmark are biased upward and are no single model's scores.",),
        records=records,
    )


def retention_table(
    rows: Sequence[Retained], *, alone: bool = False, printed: Mapping[str, Printed] | None = None
) -> Table:
    """Task by task against the base; `alone`: there is no base, only scores. `printed`: task -> the paper's score."""
    theirs = printed or {}
    cells = [
        (
            row.name,
            _score(row.tuned),
            *(() if alone else (_score(row.base), _difference_text(row.difference), "LOST" if row.lost else "")),
            *(_beside(row, theirs.get(row.name)) if printed else ()),
        )
        for row in rows
    ]
    records: list[dict[str, Any]] = [
        {"task": row.name, "score": _plain(row.tuned), "cut": row.cut}
        | ({} if alone else {"base": _plain(row.base), "difference": _plain(row.difference), "lost": row.lost})
        | ({"paper_percent": theirs[row.name].value, "table": theirs[row.name].table} if row.name in theirs else {})
        for row in rows
    ]
    return Table(
        title="Retention",
        columns=(
            "task",
            "score %",
            *(() if alone else ("base %", "difference", "")),
            *(("paper's %", "ours - paper's") if printed else ()),
        ),
        rows=tuple(cells),
        notes=(
            INTERVAL.replace("questions", "documents"),
            "V2's BBH, GPQA, MUSR and MMLU-Pro: 0 is chance, 100 all right; parts below chance are not cut off.",
            *(() if alone else ("LOST: the whole interval of the paired difference is below 0.",)),
            *(f"{row.name}: {row.cut:,} prompts did not fit and lost their beginning." for row in rows if row.cut),
        ),
        records=records,
    )


def _beside(row: Retained, theirs: Printed | None) -> tuple[str, str]:
    return ("-", "-") if theirs is None else (f"{theirs.value:.2f}", f"{row.tuned.value * 100 - theirs.value:+.2f}")


def to_markdown(table: Table) -> str:
    """A Markdown table with its title and notes."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table.columns, *table.rows)]
    head = [f"| {' | '.join(cells[0])} |", f"|{'---|' * len(cells[0])}"]
    body = [f"| {' | '.join(row)} |" for row in cells[1:]]
    return "\n".join([f"## {table.title}", "", *head, *body, "", *(f"- {note}" for note in table.notes)]) + "\n"


def to_html(table: Table) -> str:
    """A section with a table; everything from outside is escaped."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return (
        f"<section><h2>{html.escape(table.title)}</h2><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table><ul>{notes}</ul></section>\n"
    )


def to_json(table: Table) -> str:
    """The records; no NaN: what is not defined is null."""
    return (
        json.dumps({"title": table.title, "notes": table.notes, "records": _nullable(table.records)}, indent=1) + "\n"
    )


def to_terminal(table: Table, width: int | None = None) -> str:
    """The table drawn for a terminal."""
    import rich.box
    import rich.console
    import rich.markup
    import rich.table

    drawn = rich.table.Table(title=table.title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for number, name in enumerate(table.columns):
        drawn.add_column(rich.markup.escape(name), justify="left" if number == 0 else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(rich.markup.escape(cell) for cell in row))
    console = rich.console.Console(width=width)
    with console.capture() as captured:
        console.print(drawn)
        for note in table.notes:
            console.print(rich.markup.escape(note), highlight=False)
    return captured.get()


FORMATS: dict[str, Callable[[Table], str]] = {
    "terminal": to_terminal,
    "markdown": to_markdown,
    "json": to_json,
    "html": to_html,
}


def _score(estimate: Estimate) -> str:
    return f"{_percent(estimate.value)} [{estimate.low * 100:.1f}, {estimate.high * 100:.1f}]"


def _difference(cell: Cell) -> str:
    if cell.difference is None:
        return "-"
    return _difference_text(cell.difference) + (" *" if cell.significant else "")


def _difference_text(found: Estimate) -> str:
    return f"{found.value * 100:+.2f} [{found.low * 100:+.1f}, {found.high * 100:+.1f}]"


def _incomplete(text: str, cell: Cell) -> str:
    return text if cell.complete else f"{text} !"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value * 100:.2f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _plain(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _panels(comparison: Comparison) -> dict[str, str]:
    said = {"avg3": "mean over the three domains of ", "avg6": "plain mean of "}
    return {label: said[label] + ", ".join(members) for label, members in comparison.panels.items()}


def _comparison_record(comparison: Comparison) -> dict[str, Any]:
    return {
        "models": list(comparison.models),
        "panels": {label: list(members) for label, members in comparison.panels.items()},
        "rows": {
            label: {
                name: {
                    "score": _plain(cell.score),
                    "difference": _plain(cell.difference),
                    "significant": cell.significant,
                    "complete": cell.complete,
                }
                for name, cell in cells.items()
            }
            for label, cells in comparison.rows.items()
        },
    }


def _backends(scores: Sequence[Score]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for score in scores:
        found.setdefault(f"{score.name} sampled by", set()).update(score.backends)
    return {name: sorted(backends) for name, backends in found.items()}


def _nullable(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _nullable(entry) for key, entry in value.items()}
    return [_nullable(entry) for entry in value] if isinstance(value, (list, tuple)) else value

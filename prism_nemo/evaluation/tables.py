"""What the tables of scores say; `formats` writes them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism_nemo.evaluation.compare import Cell, Comparison
from prism_nemo.evaluation.paper import Printed
from prism_nemo.evaluation.retention import Retained
from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.statistics import Estimate

INTERVAL = "Brackets: 95 % intervals over questions (bootstrap; at least Wilson's where nearly all questions agree)."
SCORE_COLUMNS = (
    "model",
    "benchmark",
    "k",
    "avg@k %",
    "pass@k %",
    "maj@k %",
    "median tokens",
    "cut off %",
    "no answer %",
    "timeout / error %",
    "<think> %",
    "nll right / wrong",
    "protocol",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a table says, in words and numbers; `records` is the same for programs."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1
    """How many columns say what a row is of; the others are numbers."""
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
            str(score.k),
            _score(score.avg) + ("" if score.complete else f" ({score.samples}/{score.questions * score.k})"),
            _pass(score),
            _percent(score.majority),
            f"{score.median_tokens:,.0f}",
            _percent(score.truncated),
            _percent(score.no_answer),
            f"{_percent(score.timeouts)} / {_percent(score.errors)}",
            _percent(score.think_format),
            f"{_number(score.nll_correct)} / {_number(score.nll_incorrect)}",
            score.protocol[:8] + (f", seed {score.seed}" if score.seed else ""),
        )
        for score in scores
    ]
    notes = [INTERVAL, "nll: mean negative log-probability of sampled tokens at temperature 1, nats."]
    if not all(score.complete for score in scores):
        notes.append("(n/m): only n of m samples are in the store; the score is of those.")
    notes += [f"{name}: {', '.join(backends)}" for name, backends in _backends(scores).items()]
    protocols = {score.protocol[:8]: score.asked for score in scores if score.asked}
    notes += [f"protocol {mark}: {asked.describe()}" for mark, asked in protocols.items()]
    return Table(
        title="Scores",
        columns=SCORE_COLUMNS,
        keys=2,
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
        keys=2,
        rows=tuple(rows),
        notes=(INTERVAL, "The paper prints no intervals; its own noise is not in ours."),
        records=records,
    )


def steps_table(chosen: Mapping[str, Mapping[str, tuple[int, float]]], unfinished: Sequence[str] = ()) -> Table:
    """The scores of a run under each way of choosing a step, labelled; `unfinished`: steps that lack samples."""
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
        notes=(
            "Maxima per benchmark are biased upward and are no single model's scores.",
            *([f"Not all samples are there yet of step {', '.join(unfinished)}."] if unfinished else []),
        ),
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


def _score(estimate: Estimate) -> str:
    return f"{_percent(estimate.value)} [{estimate.low * 100:.1f}, {estimate.high * 100:.1f}]"


def _pass(score: Score) -> str:
    """pass@k, or that of the most samples which every question has."""
    if score.k == 1:
        return _percent(score.avg.value)
    k, value = max(score.pass_at.items(), default=(score.k, math.nan))
    return _percent(value) + ("" if k == score.k else f" (@{k})")


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

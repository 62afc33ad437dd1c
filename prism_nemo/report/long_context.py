"""Long context: what mid-training at a short length costs, and what merge and long training give back.

A rehearsal has losses by distance into a document and needles by length; a cluster has RULER by length.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prism_nemo.report import words
from prism_nemo.report.blocks import Block, Cell, Figure, Key, Panel, Table
from prism_nemo.report.figures import Line, curves
from prism_nemo.report.paper import paper_ruler
from prism_nemo.report.run import Run, label

COLOURS = {
    "base": "base",
    "mt": "mt",
    "merge": "three",
    "long_context_attention": "four",
    "long_context": "five",
}
DASHED = ("base", "long_context_attention")


def long_context(run: Run, prefix: str) -> list[Block]:
    """The section's blocks from `analysis_long_context/report.json` of either kind."""
    report = run.analyses["long_context"]
    return _ruler(run, report, prefix) if "lengths" in report else _rehearsed(report, prefix)


def by_length(run: Run) -> Table:
    """The points of the restoration by length alone: RULER beside the paper's, or a rehearsal's loss by position."""
    report = run.analyses["long_context"]
    points = report["points"]
    if "lengths" in report:
        return _ruler_table(points, report["lengths"], run.recipe["model"]["family"])
    return _positions(points, [_stretch(entry) for entry in _first(points)["positions"]])


def _rehearsed(report: Mapping[str, Any], prefix: str) -> list[Block]:
    points = report["points"]
    stretches = [_stretch(entry) for entry in _first(points)["positions"]]
    lengths = [words.count(entry["length"]) for entry in _first(points)["needles"]]
    panels = [
        _panel(
            _values(points, "positions"), stretches, f"{prefix}positions", "loss by position", "tokens into a document"
        ),
        _panel(_values(points, "needles"), lengths, f"{prefix}needles", "loss of a needle", "tokens of context"),
    ]
    trained, longest = (words.count(report[key]) for key in ("trained", "longest"))
    figure = Figure(
        title="Loss by position and by length",
        panels=panels,
        legend=_legend(points),
        reading="By position: the last stretch can be harder for every model, so read each curve beside the base's; "
        f"one trained at {trained} tokens may rise more beyond them, and merge and training at {longest} should undo "
        "that. Of the needle: the loss of the value that a question asks for, hidden once in that much text; lower is "
        "better.",
    )
    return [figure, _positions(points, stretches), _needles(points)]


def _first(points: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(next(iter(points.values())))


def _stretch(entry: Mapping[str, Any]) -> str:
    return f"{words.count(entry['begin'])}–{words.count(entry['end'])}"


def _values(points: Mapping[str, Any], kind: str) -> dict[str, list[float]]:
    return {name: [entry["loss"]["value"] for entry in found[kind]] for name, found in points.items()}


def _panel(
    values: Mapping[str, Sequence[float]],
    ticks: Sequence[str],
    prefix: str,
    title: str,
    x: str,
    y: str = "nats per token",
) -> Panel:
    lines = [
        Line(role=COLOURS.get(name, "one"), x=list(range(len(row))), y=row, dots=True, dashed=name in DASHED)
        for name, row in values.items()
    ]
    said = "; ".join(f"{label(name)} {row[0]:.2f} to {row[-1]:.2f}" for name, row in values.items())
    return Panel(title=title, svg=curves(lines, prefix, x=x, y=y, ticks=ticks), says=f"{title}, {y}: {said}")


def _legend(points: Mapping[str, Any]) -> list[Key]:
    return [Key(text=label(name), colour=COLOURS.get(name, "one"), dashed=name in DASHED) for name in points]


def _positions(points: Mapping[str, Any], stretches: Sequence[str]) -> Table:
    rows: list[list[str | Cell]] = [
        [label(name), *(_estimate(entry["loss"]) for entry in found["positions"])] for name, found in points.items()
    ]
    some = _first(points)["positions"][0]
    return Table(
        title="Loss by tokens into a document",
        columns=["model", *stretches],
        rows=rows,
        note=f"Nats per token on {some['documents']} held-out documents, each read from its start; 95 % intervals over "
        "documents. The documents are the same for all, so a difference is surer than the brackets look: the report's "
        "claims pair it document by document where the run kept them.",
    )


def _needles(points: Mapping[str, Any]) -> Table:
    rows = [
        [
            label(name),
            words.count(entry["length"]),
            _estimate(entry["loss"]),
            f"{words.percent(entry['first']['value'])} {words.interval(entry['first']['low'], entry['first']['high'])}",
            f"{words.percent(entry['exact']['value'])} {words.interval(entry['exact']['low'], entry['exact']['high'])}",
        ]
        for name, found in points.items()
        for entry in found["needles"]
    ]
    some = _first(points)["needles"][0]
    return Table(
        title="Needles",
        columns=["model", "tokens", "loss of the value", "ranked first, %", "written, %"],
        rows=rows,
        text_columns=1,
        folded=True,
        note=f"{some['questions']} questions of each length. Ranked first: the value is the likeliest of "
        f"{round(1 / some['chance'])}, which a guesser gets right in {words.percent(some['chance'], 0)} %. Written: "
        "the greedy answer is the value.",
    )


def _estimate(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _ruler(run: Run, report: Mapping[str, Any], prefix: str) -> list[Block]:
    points, lengths = report["points"], report["lengths"]
    names = [f"{length // 1024}k" for length in lengths]
    values = {name: [100 * entry["value"] for entry in found["ruler"]] for name, found in points.items()}
    figure = Figure(
        title="RULER by length",
        panels=[_panel(values, names, f"{prefix}ruler", "RULER", "tokens of context", "percent")],
        legend=_legend(points),
        reading="A drop beyond the length of mid-training is what it cost; merge and long-context training should lift "
        "the right end again. Mean of 13 tasks.",
    )
    return [figure, _ruler_table(points, lengths, run.recipe["model"]["family"])]


def _ruler_table(points: Mapping[str, Any], lengths: Sequence[int], family: str) -> Table:
    rows: list[list[str | Cell]] = []
    for name, found in points.items():
        ours = [
            f"{words.percent(entry['value'])} {words.interval(entry['low'], entry['high'])}" for entry in found["ruler"]
        ]
        rows.append([label(name), *ours, *("–" for _ in lengths[len(ours) :])])
        theirs = paper_ruler(family, name, lengths)
        if theirs:
            rows.append([f"{label(name)}, paper", *theirs])
    return Table(
        title="RULER, percent",
        columns=["model", *(f"{length // 1024}k" for length in lengths)],
        rows=rows,
        note="Brackets: 95 % interval over questions. Paper: Table 7, Granite-3.3 with the math and code mixture."
        + "".join(
            f" {label(name)} has {found['positions']:,} positions: – beyond."
            for name, found in points.items()
            if found.get("skipped")
        ),
    )

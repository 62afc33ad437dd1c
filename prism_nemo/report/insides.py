"""What training did inside: weights, representations, and every other analysis that the run has."""

from collections.abc import Callable, Mapping
from typing import Any

from prism_nemo.report import words
from prism_nemo.report.blocks import Block, Figure, Key, Missing, Panel, Section, Table, Text
from prism_nemo.report.claims import cka_curves, weight_changes
from prism_nemo.report.figures import Line, bars, curves
from prism_nemo.report.long_context import long_context
from prism_nemo.report.paths import behaviour, landscape, trajectory
from prism_nemo.report.run import Run, label

TITLES = {
    "weights": "What training did to the weights",
    "cka": "What training did to the representations",
    "long_context": "Long context",
    "landscape": "The way from base to MT to RL",
    "behaviour": "Behaviour: confidence and length",
    "trajectory": "The trajectory of RL",
}
SHORT = {
    "weights": "Weights",
    "cka": "Representations",
    "long_context": "Long context",
    "landscape": "Landscape",
    "behaviour": "Behaviour",
    "trajectory": "Trajectory",
}
MAKING = {name: f"prism analyze {name} makes it" for name in TITLES} | {
    "long_context": "a recipe with a long_context part makes it"
}
SHOWN_NOTES = 4


def insides(run: Run, prefix: str) -> list[Section]:
    """A section per analysis; those that were not made are named in one section."""
    made = [
        Section(name=f"{prefix}{name}", title=title, blocks=_blocks(run, name, prefix), short=SHORT[name])
        for name, title in TITLES.items()
        if name in run.analyses
    ]
    absent = [
        Missing(what=title, why=f"no such analysis in this run; {MAKING[name]}")
        for name, title in TITLES.items()
        if name not in run.analyses
    ]
    more = Section(name=f"{prefix}analyses", title="Analyses not made", blocks=absent, short="Not made")
    return [*made, more] if absent else made


def _blocks(run: Run, name: str, prefix: str) -> list[Block]:
    report = run.analyses[name]
    key = f"{prefix}{name}-"
    drawn: Mapping[str, Callable[[], list[Block]]] = {
        "weights": lambda: _weights(report, prefix),
        "cka": lambda: _cka(report, prefix),
        "long_context": lambda: long_context(run, key),
        "landscape": lambda: landscape(report, key),
        "behaviour": lambda: behaviour(report, key),
        "trajectory": lambda: trajectory(report, key),
    }
    notes = [Text(text=f"Note: {note}.") for note in list(report.get("notes", ()))[:SHOWN_NOTES]]
    return [*drawn[name](), *_beside_paper(report), *notes]


def _weights(report: Mapping[str, Any], prefix: str) -> list[Block]:
    first, second = weight_changes(report)
    if first is None or second is None:
        return [_change_table(report)]
    thresholds = list(first["unchanged"])
    changed = {
        role: [100 * (1 - row["unchanged"][name]) for name in thresholds]
        for role, row in (("mt", first), ("rl", second))
    }
    lines = [
        Line(role=role, x=list(range(len(thresholds))), y=values, dots=True, dashed=role == "rl")
        for role, values in changed.items()
    ]
    panels = [
        Panel(
            title="elements changed, by threshold",
            svg=curves(
                lines,
                f"{prefix}weights-shares",
                x="threshold, % of the old value",
                y="percent of elements",
                ticks=thresholds,
            ),
            says=f"Changed by more than 1 %: mid-training {_changed(first)}, RL {_changed(second)}",
        )
    ]
    if component := _component_panel(report, (first, second), prefix):
        panels.append(component)
    figure = Figure(
        title="Share of weights that changed",
        panels=panels,
        legend=[Key(text="base → MT", colour="mt"), Key(text="MT → MT + RL", colour="rl", dashed=True)],
        reading="Higher: more weights changed; the paper finds a wide gap between the two at every threshold.",
    )
    return [figure, _change_table(report)]


def _changed(row: Mapping[str, Any]) -> str:
    return f"{words.percent(1 - row['unchanged']['1'])} %"


def _component_panel(report: Mapping[str, Any], pair: tuple[Any, Any], prefix: str) -> Panel | None:
    rows = {
        role: {
            row["name"]: row
            for row in report["changes"]
            if row["scope"] == "component" and row["transition"] == of["transition"]
        }
        for role, of in zip(("mt", "rl"), pair, strict=True)
    }
    names = [name for name in rows["mt"] if name in rows["rl"]]
    if not names:
        return None
    values = {role: [100 * (1 - found[name]["unchanged"]["1"]) for name in names] for role, found in rows.items()}
    svg = bars(
        [_spoken(name) for name in names],
        values,
        f"{prefix}weights-components",
        axis="percent changed by more than 1 %",
    )
    return Panel(title="by component", svg=svg, says=f"Changed by more than 1 %, by component: {', '.join(names)}")


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _change_table(report: Mapping[str, Any]) -> Table:
    rows = []
    for row in report["changes"]:
        if row["scope"] in ("total", "group"):
            rows.append(
                [
                    _transition(row["transition"]),
                    row["name"] or "all",
                    words.count(row["elements"]),
                    words.figure(row["l2"]),
                    words.percent(row["bit_equal"], 2),
                    words.percent(row["unchanged"]["0.1"], 2),
                    words.percent(row["unchanged"]["1"], 2),
                ]
            )
    return Table(
        title="Change of the weights",
        columns=["transition", "part", "elements", "relative L2", "same bits, %", "within 0.1 %, %", "within 1 %, %"],
        rows=rows,
        text_columns=2,
        note="Relative L2: length of the update over that of the old weights. Shares are weighted by elements.",
    )


def _transition(written: str) -> str:
    return " → ".join(label(point) for point in written.split(" -> "))


def _cka(report: Mapping[str, Any], prefix: str) -> list[Block]:
    first, second = cka_curves(report)
    panels = []
    if first is not None and second is not None:
        lines = [_layers(first, _std(report, 0, 1), "mt"), _layers(second, _std(report, 1, 2), "rl", dashed=True)]
        panels.append(
            Panel(
                title="same layer of two checkpoints",
                svg=curves(lines, f"{prefix}cka", x="layer (0: embeddings)", y="linear CKA"),
                says=f"CKA per layer: base and MT down to {_lowest(first)}, MT and MT + RL down to {_lowest(second)}",
            )
        )
    rows = []
    for entry in report["comparisons"]:
        values = [value for value in (entry["curve"] or {}).get("value", ()) if value is not None]
        if values:
            layer = entry["curve"]["value"].index(min(values))
            rows.append(
                [
                    " and ".join(label(point) for point in entry["pair"]),
                    f"{min(values):.4f}",
                    str(layer),
                    f"{values[-1]:.4f}",
                ]
            )
    table = Table(
        title="CKA between checkpoints",
        columns=["pair", "lowest", "at layer", "last layer"],
        rows=rows,
        note=f"{report['inputs']} texts, {report['tokens']:,} tokens, at most {report['max_tokens']} each; "
        + ("centred." if report["centred"] else "not centred."),
    )
    figure = Figure(
        title="Similarity of the representations, layer by layer",
        panels=panels,
        legend=[Key(text="base and MT", colour="mt"), Key(text="MT and MT + RL", colour="rl", dashed=True)],
        reading="1 means the same geometry: texts that are alike to one model are alike to the other; bands are one "
        "standard deviation over draws of some of the texts, without replacement.",
    )
    return [figure, table] if panels else [table]


def _lowest(values: list[float | None]) -> str:
    found = [value for value in values if value is not None]
    return f"{min(found):.4f}" if found else "not defined"


def _std(report: Mapping[str, Any], first: int, second: int) -> list[float | None]:
    pair = [report["labels"][first], report["labels"][second]]
    return next(list(entry["curve"]["std"]) for entry in report["comparisons"] if list(entry["pair"]) == pair)


def _layers(values: list[float | None], spread: list[float | None], role: str, *, dashed: bool = False) -> Line:
    points = [(k, v, s or 0.0) for k, (v, s) in enumerate(zip(values, spread, strict=True)) if v is not None]
    x, y, s = (list(column) for column in zip(*points, strict=True))
    band = ([a - b for a, b in zip(y, s, strict=True)], [min(1.0, a + b) for a, b in zip(y, s, strict=True)])
    return Line(role=role, x=x, y=y, dashed=dashed, dots=True, band=band)


def _beside_paper(report: Mapping[str, Any]) -> list[Block]:
    """The analysis' own table of its figures and the paper's."""
    rows = report.get("paper", ())
    if not rows:
        return []
    own = ("ours_element_weighted", "ours_mean_of_tensors") if "ours_mean_of_tensors" in rows[0] else ("ours",)
    what = ("stage", "mixture", "benchmark", "position")
    cells = [
        [
            str(row.get("table", "Figure 13")),
            " ".join(str(row[key]) for key in what if key in row).replace("_", " "),
            *(words.figure(row[key], 4) for key in own),
            words.figure(row["paper"], 4),
        ]
        for row in rows
    ]
    columns = ["of the paper", "what", *(name.replace("_", ", ", 1).replace("_", " ") for name in own), "paper"]
    return [Table(title="Ours beside the paper's", columns=columns, rows=cells, text_columns=2, folded=True)]

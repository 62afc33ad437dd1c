"""Landscape, behaviour, trajectory: models followed along a way, from the analyses' own reports."""

from collections.abc import Mapping, Sequence
from typing import Any

from prism_nemo.report import words
from prism_nemo.report.blocks import Block, Figure, Key, Panel, Table
from prism_nemo.report.figures import Estimate, Line, curves, estimates, plane
from prism_nemo.report.run import ARMS, label

GROUPS = {"": "one", "attention": "two", "mlp": "three", "mamba": "four", "embedding": "five", "norm": "base"}
"""Group of parameters in a trajectory -> colour; the empty name is all of them."""
MEASURES = (
    ("pass_rate", "pass rate", "percent right", 100.0),
    ("median_length", "length of an answer", "median tokens", 1.0),
    ("nll_correct", "surprise at its own right answers", "nats per token", 1.0),
    ("nll_incorrect", "surprise at its own wrong answers", "nats per token", 1.0),
)
STEPS = (
    ("l2", "distance from the start", "relative L2", 1.0),
    ("changed_1pct", "changed by more than 1 %", "percent of elements", 100.0),
    ("overlap", "active set shared with the checkpoint before", "percent", 100.0),
)


def landscape(report: Mapping[str, Any], prefix: str) -> list[Block]:
    """The pass rate from base over MT to RL, and the plane through the three."""
    path = sorted((point for point in report["points"] if point["kind"] == "path"), key=lambda point: point["x"])
    blocks: list[Block] = [_way(path, prefix)] if path else []
    grid = [point for point in report["points"] if point["kind"] == "grid"]
    if grid:
        blocks.append(_plane(grid, {point["x"]: point["rate"]["value"] for point in path}, prefix))
    return [*blocks, _way_table(path)] if path else blocks


def _way(path: Sequence[Mapping[str, Any]], prefix: str) -> Figure:
    value, low, high = ([100 * point["rate"][key] for point in path] for key in ("value", "low", "high"))
    line = Line(role="two", x=[point["x"] for point in path], y=value, band=(low, high), dots=True)
    said = ", ".join(f"{rate:.1f}" for rate in value)
    svg = curves([line], f"{prefix}path", x="merges on the way", y="percent right", ticks=["base", "MT", "MT + RL"])
    return Figure(
        title="Pass rate between the checkpoints",
        panels=[Panel(title="path", svg=svg, says=f"Percent right from base over MT to MT + RL: {said}")],
        reading="Each point is a model between two checkpoints, their weights averaged. No valley between two of them "
        "means that they lie in one basin. The band is the 95 % interval over questions.",
    )


def _plane(grid: Sequence[Mapping[str, Any]], way: Mapping[float, float], prefix: str) -> Figure:
    """`way`: position on the path -> pass rate, which the three checkpoints have there."""
    points = [(point["x"], point["y"], 100 * point["rate"]["value"]) for point in grid]
    places = {"base": (0.0, (0.0, 1.0)), "MT": (1.0, (0.0, 0.0)), "MT + RL": (2.0, (1.0, 0.0))}
    marks = {f"{name} {100 * way[at]:.0f}" if at in way else name: place for name, (at, place) in places.items()}
    says = f"Percent right over the plane, from {min(p[2] for p in points):.1f} to {max(p[2] for p in points):.1f}"
    return Figure(
        title="The plane through base, MT and RL",
        panels=[Panel(title="plane", svg=plane(points, marks, f"{prefix}plane"), says=says)],
        reading="Brighter is a higher pass rate. Each small dot is a merge that was measured, the colours between them "
        "are interpolated, so near a checkpoint trust the percent beside its name. A ridge from MT to MT + RL means "
        "that RL moved along good models.",
    )


def _way_table(path: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            f"{point['x']:.2f}",
            *(f"{weight:.2f}" for weight in point["weights"]),
            f"{words.percent(point['rate']['value'])} {words.interval(point['rate']['low'], point['rate']['high'])}",
            f"{point['rate']['median_tokens']:.0f}",
        ]
        for point in path
    ]
    columns = ["position", "base", "MT", "MT + RL", "percent right", "median tokens"]
    return Table(title="Points on the way", columns=columns, rows=rows, folded=True)


def behaviour(report: Mapping[str, Any], prefix: str) -> list[Block]:
    """How right, how long and how sure the answers are, by model and benchmark."""
    panels = [panel for entry in MEASURES if (panel := _measure(report["rows"], *entry, prefix))]
    figure = Figure(
        title="Right, long, sure",
        panels=panels,
        reading="Surprise is the negative log-probability a model gives what it wrote itself: lower is surer. A model "
        "that knows what it knows is surer of right answers than of wrong ones. Bars are 95 % intervals.",
    )
    return [figure, _behaviour_table(report["rows"])]


def _measure(
    rows: Sequence[Mapping[str, Any]], key: str, title: str, axis: str, scale: float, prefix: str
) -> Panel | None:
    found = [
        Estimate(
            name=_who(row),
            role=row["name"] if row["name"] in ARMS else "five",
            value=scale * row[key]["value"],
            low=scale * _or(row[key]["low"], row[key]["value"]),
            high=scale * _or(row[key]["high"], row[key]["value"]),
            text=words.figure(scale * row[key]["value"]),
        )
        for row in rows
        if row[key]["value"] is not None
    ]
    if not found:
        return None
    top = max(entry.high for entry in found) or 1.0
    svg = estimates(found, f"{prefix}{key}", axis=axis, limits=(-0.03 * top, 1.12 * top))
    return Panel(title=title, svg=svg, says=f"{title}, {axis}: {'; '.join(f'{e.name} {e.text}' for e in found)}")


def _who(row: Mapping[str, Any]) -> str:
    return f"{label(row['name'])}, {str(row['benchmark']).removeprefix('held_out_')}"


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _behaviour_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = [
        [
            _who(row),
            words.count(row["samples"]),
            words.percent(row["pass_rate"]["value"]),
            *(words.figure(row[key]["value"]) for key in ("median_length", "mean_length")),
            words.percent(row["truncated"]),
            *(words.figure(row[key]["value"]) for key in ("nll", "nll_correct", "nll_incorrect")),
        ]
        for row in rows
    ]
    columns = ["model", "samples", "right, %", "median tokens", "mean tokens", "cut off, %"]
    columns += ["surprise", "of right answers", "of wrong answers"]
    return Table(title="Behaviour in figures", columns=columns, rows=shown, folded=True)


def trajectory(report: Mapping[str, Any], prefix: str) -> list[Block]:
    """Distance from the start of RL, by checkpoint and group of parameters."""
    names = [name for name in GROUPS if any(row["name"] == name for row in report["rows"])]
    panels = [panel for entry in STEPS if (panel := _journey(report["rows"], names, *entry, prefix))]
    figure = Figure(
        title="From MT to MT + RL, checkpoint by checkpoint",
        panels=panels,
        legend=[Key(text=name or "all parameters", colour=GROUPS[name], dashed=not name) for name in names],
        reading="A steep start that flattens means that RL did most of its moving early; a shared active set near "
        "100 % means that it keeps changing the same weights.",
    )
    return [figure, _fronts(report)]


def _journey(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], key: str, title: str, unit: str, scale: float, prefix: str
) -> Panel | None:
    lines = []
    for name in names:
        scope = "group" if name else "total"
        points = [
            (row["step"], scale * row[key])
            for row in rows
            if (row["scope"], row["name"]) == (scope, name) and row[key] is not None
        ]
        if points:
            x, y = (list(column) for column in zip(*points, strict=True))
            lines.append(Line(role=GROUPS[name], x=x, y=y, dots=True, dashed=not name))
    if not lines:
        return None
    svg = curves(lines, f"{prefix}{key}", x="RL step", y=unit, height=1.9)
    return Panel(title=title, svg=svg, says=f"{title}, {unit}: all parameters to {lines[0].y[-1]:.3g} at the end")


def _fronts(report: Mapping[str, Any]) -> Table:
    rows = [
        [front["name"] or "all", words.figure(front["step"]), words.count(front["checkpoint"])]
        for front in report["fronts"]
        if front["scope"] in ("total", "group")
    ]
    return Table(
        title="When 80 % of the way was gone",
        columns=["parameters", "RL step", "checkpoint"],
        rows=rows,
        note=f"Of {report['steps'][-1]} RL steps, from the {len(report['steps'])} checkpoints that were kept; between "
        "two of them the step is interpolated.",
    )

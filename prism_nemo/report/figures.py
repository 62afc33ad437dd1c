"""The report's drawings: estimates with intervals, bars, curves. Each panel is 3.6 inches wide, so it fits a phone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism_nemo.report.svg import CARD, INK, QUIET, SERIES, drawing, to_svg

WIDTH = 3.6
MARKERS = {"base": "o", "rl_base": "s", "mt": "^", "rl": "D"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its interval, drawn as a dot on a line."""

    name: str
    role: str
    """Of `svg.SERIES`."""
    value: float
    low: float
    high: float
    text: str
    """Beside the dot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve."""

    role: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None
    """Lower and upper end at each x."""
    dots: bool = False
    smooth: bool = False
    """Draw the running mean over `smoothing(points)` points, the points themselves faintly behind it."""


def smoothing(points: int) -> int:
    """Points of the running mean of a noisy curve; 1: none, there are few."""
    return 1 if points < 60 else points // 20


def _running_mean(values: Sequence[float], window: int) -> Any:
    import numpy as np

    return np.convolve(values, np.full(window, 1 / window), mode="valid")


def estimates(found: Sequence[Estimate], prefix: str, *, axis: str, limits: tuple[float, float]) -> str:
    """One row per estimate, the first on top; `limits` of the axis."""
    with drawing(WIDTH, 0.62 + 0.34 * len(found)) as (figure, axes):
        for row, entry in enumerate(found):
            colour = SERIES[entry.role]
            axes.plot([entry.low, entry.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot([entry.value], [row], MARKERS.get(entry.role, "o"), color=colour, markersize=5.5)
            side = _side((entry.value - limits[0]) / (limits[1] - limits[0]))
            axes.annotate(entry.text, (entry.value, row), (0, 5), textcoords="offset points", ha=side, color=INK)
        _rows(axes, [entry.name for entry in found])
        axes.set_ylim(len(found) - 0.6, -0.75)
        axes.set_xlim(*limits)
        axes.set_xlabel(axis)
        return to_svg(figure, prefix)


def _side(place: float) -> str:
    """How a text over a dot lies, so that it stays inside the axes; `place`: of the dot, 0 at their left, 1 right."""
    return "left" if place < 0.12 else "right" if place > 0.95 else "center"


def bars(
    names: Sequence[str], series: Mapping[str, Sequence[float]], prefix: str, *, axis: str, texts: Sequence[str] = ()
) -> str:
    """Horizontal bars, one group per name; `series`: role -> a value per name; `texts`: at the end of the bars."""
    with drawing(WIDTH, 0.55 + (0.12 + 0.13 * len(series)) * len(names)) as (figure, axes):
        thick = 0.72 / len(series)
        for number, (role, values) in enumerate(series.items()):
            at = [row - 0.36 + thick * (number + 0.5) for row in range(len(names))]
            axes.barh(at, values, height=thick * 0.86, color=SERIES[role])
        longest = max((max(values, default=0.0) for values in series.values()), default=0.0)
        for row, text in enumerate(texts):
            end = max(values[row] for values in series.values())
            axes.annotate(text, (end, row), (4, 0), textcoords="offset points", va="center", color=INK)
        _rows(axes, list(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, longest * (1.34 if texts else 1.05) or 1)
        axes.set_xlabel(axis)
        return to_svg(figure, prefix)


def curves(
    lines: Sequence[Line],
    prefix: str,
    *,
    x: str,
    y: str,
    log_y: bool = False,
    ticks: Sequence[str] = (),
    height: float = 2.2,
) -> str:
    """Curves over one axis; `ticks` name the x positions 0, 1, ..."""
    with drawing(WIDTH, height) as (figure, axes):
        for line in lines:
            _draw_line(axes, line)
        if log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        axes.xaxis.get_major_locator().set_params(integer=True)  # steps, layers
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks)
        axes.margins(x=0.02)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return to_svg(figure, prefix)


def plane(points: Sequence[tuple[float, float, float]], marks: Mapping[str, tuple[float, float]], prefix: str) -> str:
    """Filled contours over a grid of (x, y, percent); every measured point is a dot. `marks`: name -> its place."""
    xs, ys = sorted({point[0] for point in points}), sorted({point[1] for point in points})
    values = {(x, y): value for x, y, value in points}
    with drawing(WIDTH, 3.3) as (figure, axes):
        rows = [[values[x, y] for x in xs] for y in ys]
        if len(xs) > 1 and len(ys) > 1 and max(map(max, rows)) > min(map(min, rows)):
            filled = axes.contourf(xs, ys, rows, levels=10, cmap="cividis")
            figure.colorbar(filled, label="percent right", orientation="horizontal", pad=0.02, aspect=40)
        style = {"markerfacecolor": CARD, "markeredgecolor": INK, "linestyle": "none", "clip_on": False, "marker": "o"}
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], markersize=2.5, markeredgewidth=0.5, **style)
        for name, place in marks.items():
            axes.plot(*place, markersize=6, **style)
            box = {"facecolor": CARD, "edgecolor": "none", "pad": 1.2}
            axes.annotate(name, place, (5, 5), textcoords="offset points", color=INK, bbox=box)
        axes.grid(visible=False)
        axes.set_xlabel("MT to MT + RL")
        axes.set_ylabel("MT to base")
        return to_svg(figure, prefix)


def _draw_line(axes: Any, line: Line) -> None:
    colour = SERIES[line.role]
    if line.band is not None:
        axes.fill_between(line.x, line.band[0], line.band[1], color=colour, alpha=0.18, linewidth=0)
    alone, window = len(line.x) == 1, smoothing(len(line.x)) if line.smooth else 1
    if window > 1:
        axes.plot(line.x, line.y, color=colour, alpha=0.25, linewidth=0.7)
        middle = slice(window // 2, window // 2 + len(line.x) - window + 1)
        axes.plot(line.x[middle], _running_mean(line.y, window), "--" if line.dashed else "-", color=colour)
        return
    axes.plot(
        line.x,
        line.y,
        linestyle=(0, (4, 2)) if line.dashed else "-",
        marker="o" if line.dots or alone else None,
        markersize=3.5,
        color=colour,
    )


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def lineage(nodes: Sequence[tuple[str, str]], edges: Sequence[tuple[int, int]], prefix: str) -> str:
    """One row per artifact, in the order they were made, and an arc from each to what was made from it.

    nodes: (name, fingerprint); edges: (index of an input, index of what it went into).
    """
    from matplotlib.patches import Arc

    step, trunk = 0.27, 1.0
    with drawing(WIDTH, 0.2 + step * len(nodes)) as (figure, axes):
        axes.set_axis_off()
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(step * (len(nodes) - 0.4), -step * 0.6)
        reach = 2 * (trunk - 0.05) / max(1, len(nodes) - 1)
        for start, end in edges:
            middle, span = (start + end) / 2 * step, (end - start) * step
            arc = Arc((trunk, middle), reach * (end - start), span, theta1=90, theta2=270, color=SERIES["base"], lw=0.8)
            axes.add_patch(arc)
        axes.plot([trunk] * len(nodes), [k * step for k in range(len(nodes))], "o", color=SERIES["mt"], markersize=5)
        for k, (name, mark) in enumerate(nodes):
            axes.annotate(name, (trunk + 0.12, k * step), va="center", color=INK)
            axes.annotate(mark, (WIDTH - 0.02, k * step), va="center", ha="right", color=QUIET, fontsize=8.5)
        return to_svg(figure, prefix)

"""Scoring the landscape's points, its tables, its curve and its contours, and the paper's curve."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prism_nemo.analysis.landscape import GRID, PATH, LandscapeReport, PassRate, Scorer, measure_landscape, rows
from prism_nemo.analysis.output import Output, produce
from prism_nemo.analysis.paper import MEASURED_ON, paper_rows
from prism_nemo.analysis.style import SEQUENTIAL, drawing, line_style, save_figure
from prism_nemo.evaluation.benchmark import Benchmark
from prism_nemo.evaluation.pipeline import evaluate_checkpoint
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.statistics import score_interval

OTHER_QUESTIONS = "the paper's curve is of MATH500 alone; other questions are asked here, so it is not shown"


def store_scorer(
    store: Path,
    benchmarks: Sequence[Benchmark],
    *,
    k: int,
    sampling: Sampling | None,
    prompting: Prompting | None,
    seed: int = 0,
    backend: str = "hf",
) -> Scorer:
    """Scores a folder through the generation store: what is sampled already is not sampled again."""

    def scorer(folder: Path) -> PassRate:
        options: dict[str, Any] = {"k": k, "sampling": sampling, "prompting": prompting, "seed": seed}
        return pass_rate(evaluate_checkpoint(folder, benchmarks, store, backend=backend, **options))

    return scorer


def pass_rate(scores: Sequence[Score]) -> PassRate:
    """One rate over all questions of all benchmarks, each question counted once."""
    shares = [share for score in scores for share in score.question_scores.values()]
    estimate = score_interval(shares)
    medians = [score.median_tokens for score in scores]
    return PassRate(
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        questions=len(shares),
        samples=sum(score.samples for score in scores),
        median_tokens=float(np.median(medians)),
    )


def analyse_landscape(
    out: Path,
    points: Mapping[str, Path],
    benchmarks: Sequence[Benchmark],
    store: Path,
    *,
    k: int,
    sampling: Sampling | None = None,
    prompting: Prompting | None = None,
    seed: int = 0,
    path: Sequence[float] = PATH,
    grid: Sequence[float] = GRID,
    backend: str = "hf",
    paper: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """`measure_landscape` as an artifact at `out`; finished points stay in `.NAME.points` beside it.

    `points`: base, mt, rl -> Hugging Face directory. `k`: samples of each question at each point. `backend`: hf or
    vllm. `paper`: its curve beside ours where MATH500 alone is asked, as there.
    """
    asked = {
        "questions": {benchmark.task: sorted(benchmark.messages) for benchmark in benchmarks},
        "sampling": [dataclasses.asdict(sampling or benchmark.sampling) for benchmark in benchmarks],
        "prompting": dataclasses.asdict(prompting) if prompting else None,
        "k": k,
        "seed": seed,
    }
    scorer = store_scorer(store, benchmarks, k=k, sampling=sampling, prompting=prompting, seed=seed, backend=backend)

    def make() -> Output:
        work = out.parent / f".{out.name}.points"
        corners = (points["base"], points["mt"], points["rl"])
        places: dict[str, Any] = {"path": path, "grid": grid, "progress": progress}
        report = measure_landscape(*corners, scorer, asked=asked, work=work, **places)
        if paper and {benchmark.name for benchmark in benchmarks} != {MEASURED_ON}:
            return landscape_output(dataclasses.replace(report, notes=[*report.notes, OTHER_QUESTIONS]))
        return landscape_output(report, paper=paper)

    parameters = {**asked, "path": list(path), "grid": list(grid), "paper": paper}
    return produce(out, "landscape", parameters, points, make, force=force)


def landscape_output(report: LandscapeReport, *, paper: str | None = None) -> Output:
    """What is written for a report."""
    tables = {kind: list(rows(report, kind)) for kind in ("path", "grid")}
    on_path = [point for point in report.points if point.kind == "path"]
    return Output(
        title="Pass rate between the checkpoints",
        report=report.to_json(),
        tables={kind: found for kind, found in tables.items() if found},
        draw=lambda folder: draw_landscape(report, folder, paper),
        shown=[kind for kind in ("path",) if tables[kind]],
        paper=_beside(report, paper) if paper else (),
        notes=report.notes,
        metrics={f"{point.x:g}": point.rate.value for point in on_path},
    )


def _beside(report: LandscapeReport, paper: str) -> list[dict[str, Any]]:
    ours = {round(point.x, 3): point.rate for point in report.points if point.kind == "path"}
    found = []
    for position, value in _paper_curve(paper):
        rate = ours.get(round(position, 3))
        if rate is not None:
            found.append(
                {
                    "position": position,
                    "paper": value,
                    "ours": 100 * rate.value,
                    "ours_low": 100 * rate.low,
                    "ours_high": 100 * rate.high,
                    "note": "percent; the paper's values are read off figure 13, about +-0.5",
                }
            )
    return found


def _paper_curve(model: str) -> list[tuple[float, float]]:
    """The paper's 1-D curve: positions as in PATH, which its figure prints as fractions."""
    return [(_position(row["note"]), row["value"]) for row in paper_rows(model, ("Fig 13",))]


def _position(note: str) -> float:
    """The number in a note such as `path position 1/6 (0 base, 1 MT, 2 RL); ...`."""
    first, _, second = note.removeprefix("path position ").split(" ")[0].partition("/")
    return float(first) / float(second or 1)


def draw_landscape(report: LandscapeReport, folder: Path, paper: str | None = None) -> list[str]:
    """The curve with its intervals, and the plane with every measured point on it."""
    names = []
    with drawing() as plt:
        if any(point.kind == "path" for point in report.points):
            save_figure(_curve(plt, report, paper), folder, "path")
            names.append("path")
        if any(point.kind == "grid" for point in report.points):
            save_figure(_plane(plt, report), folder, "plane")
            names.append("plane")
    return names


def _curve(plt: Any, report: LandscapeReport, paper: str | None) -> Any:
    points = sorted((point for point in report.points if point.kind == "path"), key=lambda point: point.x)
    x = [point.x for point in points]
    rate, low, high = (
        np.array([100 * getattr(point.rate, name) for point in points]) for name in ("value", "low", "high")
    )
    figure, axis = plt.subplots(figsize=(6.5, 3.4))
    style = line_style(0)
    axis.plot(x, rate, **style, label="ours")
    axis.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
    if paper and (curve := _paper_curve(paper)):
        axis.plot(*zip(*curve, strict=True), **line_style(1), label=f"paper, {paper}")
        axis.legend()
    axis.set_xticks([0, 0.5, 1, 1.5, 2], ["base", "half way", "MT", "half way", "RL"])
    axis.set(ylabel="pass rate, %", xlabel="position between the checkpoints (band: 95 % interval over questions)")
    figure.tight_layout()
    return figure


def _plane(plt: Any, report: LandscapeReport) -> Any:
    points = [point for point in report.points if point.kind == "grid"]
    xs, ys = (sorted({getattr(point, axis) for point in points}) for axis in ("x", "y"))
    values = {(point.x, point.y): 100 * point.rate.value for point in points}
    grid = np.array([[values[x, y] for x in xs] for y in ys])
    figure, axis = plt.subplots(figsize=(5.4, 4.2))
    if len(xs) > 1 and np.ptp(grid) > 0:
        filled = axis.contourf(xs, ys, grid, levels=12, cmap=SEQUENTIAL)
        lines = axis.contour(xs, ys, grid, levels=6, colors="white", linewidths=0.6)
        axis.clabel(lines, fontsize=7)
        figure.colorbar(filled, label="pass rate, %")
    else:
        axis.set_title(f"pass rate {grid[0, 0]:.1f} % at every point")
    node: dict[str, Any] = {"marker": "o", "markersize": 3.5, "markerfacecolor": "white", "markeredgecolor": "black"}
    axis.plot([point.x for point in points], [point.y for point in points], **node, linestyle="none", clip_on=False)
    corner = {point.x: f" {100 * point.rate.value:.1f}" for point in report.points if point.kind == "path"}
    for name, place, position in (("MT", (0, 0), 1), ("RL", (1, 0), 2), ("base", (0, 1), 0)):
        axis.plot(*place, marker="D", markersize=7, markerfacecolor="white", markeredgecolor="black")
        note = {"xytext": (5, 5), "textcoords": "offset points", "fontweight": "bold", "color": "black"}
        axis.annotate(
            name + corner.get(position, ""),
            place,
            **note,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
        )
    axis.set(xlabel="MT to RL", ylabel="MT to base")
    axis.grid(False)
    figure.tight_layout()
    return figure

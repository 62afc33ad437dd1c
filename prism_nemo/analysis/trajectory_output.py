"""Tables and figures for `measure_trajectory`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.analysis.output import Output, produce
from prism_nemo.analysis.paper import beside
from prism_nemo.analysis.style import drawing, line_style, save_figure
from prism_nemo.analysis.trajectory import TrajectoryReport, find_checkpoints, measure_trajectory

SHOWN = ("attention", "mlp", "mamba", "embedding", "norm")


def analyse_trajectory(
    out: Path,
    run: Path,
    *,
    start: Path | None = None,
    ignore: Sequence[str] = (),
    paper: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """`measure_trajectory` as an artifact at `out`. `start`: what RL began with; default the earliest checkpoint.

    `paper`: a model of the paper to stand beside.
    """
    checkpoints = find_checkpoints(run)
    first = start or checkpoints.pop(min(checkpoints))
    inputs = {"start": first} | {f"step_{step}": folder for step, folder in checkpoints.items()}

    def make() -> Output:
        report = measure_trajectory(first, checkpoints, ignore=ignore, progress=progress)
        if start is None:
            note = (
                "the start is the earliest checkpoint, so distances are from there; --start names the model before RL"
            )
            report = dataclasses.replace(report, notes=[note, *report.notes])
        return trajectory_output(report, paper=paper)

    parameters = {"ignore": list(ignore), "given_start": start is not None, "paper": paper}
    return produce(out, "trajectory", parameters, inputs, make, force=force)


def trajectory_output(report: TrajectoryReport, *, paper: str | None = None) -> Output:
    """What is written for a report."""
    last = {row.name: row for row in report.rows if row.step == report.steps[-1] and row.scope == "total"}[""]
    whole = next(front for front in report.fronts if front.scope == "total")
    return Output(
        title="The trajectory of RL",
        report=report.to_json(),
        tables={
            "steps": [dataclasses.asdict(row) for row in report.rows],
            "fronts": [dataclasses.asdict(front) for front in report.fronts],
        },
        draw=lambda folder: draw_trajectory(report, folder),
        shown=["fronts"],
        paper=beside(paper, ("Fig 16",), lambda record: _ours(report, record)) if paper else (),
        notes=report.notes,
        metrics={"l2": last.l2, "changed_1pct": last.changed_1pct, "step_of_80_percent": whole.step},
    )


def _ours(report: TrajectoryReport, record: Mapping[str, Any]) -> dict[str, float | None] | None:
    """Shares at the very step that the figure shows, percent; the step at which 80 % of the way is reached."""
    name = str(record["benchmark"])
    if name.startswith("step_of_80_percent_"):
        group = name.removeprefix("step_of_80_percent_")
        found = [front.step for front in report.fronts if (front.scope, front.name) == ("group", group)]
        return {"ours": found[0]} if found else None
    step = int(name.removeprefix("changed_1pct_at_step_"))
    shares = [row.changed_1pct for row in report.rows if (row.step, row.scope) == (step, "total")]
    return {"ours": None if shares[0] is None else 100 * shares[0]} if shares else None


def draw_trajectory(report: TrajectoryReport, folder: Path) -> list[str]:
    """Distance, share changed and overlap of active sets by step, per group."""
    names = ["", *(name for name in SHOWN if any(row.name == name for row in report.rows))]
    panels = (
        ("l2", "relative L2 from the start", 1),
        ("changed_1pct", "elements beyond 1 %, %", 100),
        ("overlap", "active set: overlap with\nthe checkpoint before, %", 100),
    )
    with drawing() as plt:
        figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
        for axis, (field, label, scale) in zip(axes, panels, strict=True):
            for k, name in enumerate(names):
                scope = "group" if name else "total"
                points = [
                    (row.step, scale * getattr(row, field))
                    for row in report.rows
                    if (row.scope, row.name) == (scope, name) and getattr(row, field) is not None
                ]
                if points:
                    axis.plot(*zip(*points, strict=True), **line_style(k), label=name or "all")
            axis.set(xlabel="step", ylabel=label, xlim=(0, None))
            axis.set_ylim(bottom=0)
        front = next(front for front in report.fronts if front.scope == "total")
        if front.step is not None:
            axes[0].axvline(front.step, color="black", linewidth=0.8, linestyle=":")
            axes[0].annotate("80 %", (front.step, 0), xytext=(3, 3), textcoords="offset points", fontsize=7)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names))
        figure.tight_layout(rect=(0, 0, 1, 0.92))
        save_figure(figure, folder, "trajectory")
    return ["trajectory"]

"""Tables, figures and the paper's numbers for `measure_behaviour`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.analysis.behaviour import Behaviour, BehaviourReport, Interval, measure_behaviour, samples_mark
from prism_nemo.analysis.output import Output, produce
from prism_nemo.analysis.paper import MEASURED_ON, beside
from prism_nemo.analysis.style import drawing, line_style, save_figure
from prism_nemo.evaluation.benchmark import Benchmark

STAGES = {"base": "base", "mt": "mt", "rl": "mt_rl"}
"""A model's name -> the paper's stage."""
OTHER_QUESTIONS = "the paper's table is of MATH500; no model called base, mt or rl has answers to it under one protocol"
FIGURES = (
    ("pass_rate", "pass rate, %", 100),
    ("median_length", "median length, tokens", 1),
    ("nll", "negative log-probability, nats", 1),
)


def analyse_behaviour(
    out: Path,
    stores: Sequence[Path],
    benchmarks: Sequence[Benchmark],
    *,
    models: Mapping[str, Path] | None = None,
    k: int | None = None,
    paper: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """`measure_behaviour` as an artifact at `out`. `paper`: beside models called base, mt and rl on MATH500.

    With `models` these and their samples are the artifact's inputs and not the stores: other models' samples may join
    those meanwhile.
    """
    questions = {benchmark.task: sorted(benchmark.messages) for benchmark in benchmarks}
    parameters: dict[str, Any] = {"questions": questions, "k": k, "paper": paper}
    if models:
        parameters["samples"] = samples_mark(stores, benchmarks, models, k)
    inputs = dict(models) if models else {f"store_{number}": Path(store) for number, store in enumerate(stores)}

    def make() -> Output:
        return behaviour_output(measure_behaviour(stores, benchmarks, models=models, k=k), paper=paper)

    return produce(out, "behaviour", parameters, inputs, make, force=force)


def behaviour_output(report: BehaviourReport, *, paper: str | None = None) -> Output:
    """What is written for a report."""
    rows = beside(paper, ("Table 15",), lambda record: _ours(report, record)) if paper else []
    return Output(
        title="Behaviour: confidence and length",
        report=report.to_json(),
        tables={"behaviour": [_row(row) for row in report.rows]},
        draw=lambda folder: draw_behaviour(report, folder),
        shown=["behaviour"],
        paper=rows,
        notes=[*report.notes, *([OTHER_QUESTIONS] if paper and not rows else [])],
        metrics={f"{row.name} on {row.benchmark}": row.pass_rate.value for row in report.rows},
    )


def _row(row: Behaviour) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, Interval):
            flat |= {field.name: value.value, f"{field.name}_low": value.low, f"{field.name}_high": value.high}
        else:
            flat[field.name] = value
    return flat


def _ours(report: BehaviourReport, record: Mapping[str, Any]) -> dict[str, float | None] | None:
    benchmark = str(record["benchmark"])
    name = benchmark.replace("neg_logprob", "nll").replace("pass_rate_math500_200", "pass_rate")
    rows = [row for row in report.rows if (STAGES.get(row.name), row.benchmark) == (record["stage"], MEASURED_ON)]
    if len(rows) != 1:  # none, or several protocols of which none is the one
        return None
    found: Interval = getattr(rows[0], name)
    scale = 100 if name == "pass_rate" else 1
    return {
        key: None if value is None else scale * value
        for key, value in (("ours", found.value), ("ours_low", found.low), ("ours_high", found.high))
    }


def draw_behaviour(report: BehaviourReport, folder: Path) -> list[str]:
    """Pass rate, length and confidence of each model; confidence apart for right and wrong answers."""
    with drawing() as plt:
        count = len(report.rows)
        figure, axes = plt.subplots(1, 3, figsize=(9, 0.32 * count + 1.6), sharey=True)
        for axis, (name, label, scale) in zip(axes, FIGURES, strict=True):
            kinds = ("nll", "nll_correct", "nll_incorrect") if name == "nll" else (name,)
            for k, kind in enumerate(kinds):
                _dots(axis, [getattr(row, kind) for row in report.rows], k, len(kinds), scale)
            axis.set_xlabel(label)
        axes[0].set_xlim(-3, 103)
        names = [f"{row.name}, {row.benchmark}" for row in report.rows]
        axes[0].set(yticks=range(count), yticklabels=names, ylim=(count - 0.4, -0.6))
        labels = ("all answers", "right", "wrong")
        axes[2].legend(axes[2].containers, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=7)
        figure.tight_layout()
        save_figure(figure, folder, "behaviour")
    return ["behaviour"]


def _dots(axis: Any, intervals: Sequence[Interval], k: int, of: int, scale: float) -> None:
    style = {**line_style(k), "linestyle": "none", "markersize": 5}
    nan = float("nan")
    values = [nan if found.value is None else scale * found.value for found in intervals]
    ends = [
        [nan if end is None else abs(value - scale * end) for value, end in zip(values, side, strict=True)]
        for side in ([found.low for found in intervals], [found.high for found in intervals])
    ]
    places = [place + 0.18 * (k - (of - 1) / 2) for place in range(len(values))]
    axis.errorbar(values, places, xerr=ends, capsize=2, elinewidth=0.8, **style)

"""Tables, figures and the paper's numbers for `compare_representations`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prism_nemo.analysis.activations import read_texts
from prism_nemo.analysis.output import Output, produce
from prism_nemo.analysis.paper import beside
from prism_nemo.analysis.representations import CkaReport, Comparison, compare_representations
from prism_nemo.analysis.style import COLOURS, SEQUENTIAL, drawing, line_style, save_figure

PAPER_TABLES = ("Table 14", "Sec 10.2", "Fig 27")


def analyse_representations(
    out: Path,
    points: Mapping[str, Path],
    inputs: Path,
    *,
    count: int = 200,
    field: str = "text",
    max_tokens: int = 512,
    centred: bool = True,
    resample_size: int | None = None,
    paper: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """`compare_representations` as an artifact at `out`; pooled activations stay in `.NAME.activations` beside it.

    `points`: label -> Hugging Face directory, two or three, in order. `paper`: a model of the paper to stand beside.
    """
    texts = read_texts(inputs, count, field=field)
    parameters = {"labels": list(points), "count": count, "field": field, "max_tokens": max_tokens, "paper": paper}
    parameters |= {"centred": centred, "resample_size": resample_size}

    def make() -> Output:
        work = out.parent / f".{out.name}.activations"
        options: dict[str, Any] = {"max_tokens": max_tokens, "centred": centred, "resample_size": resample_size}
        return cka_output(compare_representations(points, texts, work=work, **options), paper=paper)

    return produce(out, "cka", parameters, {**points, "inputs": inputs}, make, force=force)


def cka_output(report: CkaReport, *, paper: str | None = None) -> Output:
    """What is written for a report."""
    body = report.to_json()
    for shown, item in zip(body["comparisons"], report.comparisons, strict=True):
        shown["minimum"] = item.minimum
    curves = [row for item in report.comparisons for row in _curve_rows(item)]
    minima = [
        {"pair": _name(item), "state": item.minimum[0], "cka": item.minimum[1], "std": item.curve.std[item.minimum[0]]}
        for item in report.comparisons
        if item.minimum and item.curve
    ]
    matrix = [
        {"pair": _name(item), "row": i, "column": j, "cka": value}
        for item in report.comparisons
        for i, row in enumerate(item.matrix)
        for j, value in enumerate(row)
    ]
    tables = {"curves": curves, "minima": minima, "matrix": matrix}
    return Output(
        title="What training did to the representations (linear CKA)",
        report=body,
        tables={name: rows for name, rows in tables.items() if rows},
        draw=lambda folder: draw_cka(report, folder),
        shown=["minima"] if minima else [],
        paper=beside(paper, PAPER_TABLES, lambda record: _ours(report, record)) if paper else (),
        notes=[
            f"{report.inputs} inputs, {report.tokens} tokens, {'centred' if report.centred else 'not centred'}; "
            "state 0 is the embedding, the last one follows the final norm",
            *(["the paper's inputs are 200 texts each of Wikipedia, C4 and GSM8K, ours are others"] if paper else []),
            *report.notes,
        ],
        metrics={_name(item): item.minimum[1] for item in report.comparisons if item.minimum},
    )


def _name(item: Comparison) -> str:
    return f"{item.pair[0]} and {item.pair[1]}"


def _curve_rows(item: Comparison) -> list[dict[str, Any]]:
    if item.curve is None:
        return []
    columns = zip(item.curve.value, item.curve.mean, item.curve.std, strict=True)
    return [
        {"pair": _name(item), "state": state, "cka": value, "resample_mean": mean, "resample_std": std}
        for state, (value, mean, std) in enumerate(columns)
    ]


def _ours(report: CkaReport, record: Mapping[str, Any]) -> dict[str, float | None] | None:
    """Minimum over layers for `cka_min_*`, the last state for the text's "final layer"; inputs may differ."""
    pair = tuple(record["stage"].split("_vs_"))
    found = [item for item in report.comparisons if item.pair == pair and item.minimum and item.curve]
    if not found or not found[0].minimum or not found[0].curve:
        return None
    if record["benchmark"].startswith("cka_min"):
        return {"ours": found[0].minimum[1]}
    return {"ours": found[0].curve.value[-1]} if "final layer" in record["note"] else None


def draw_cka(report: CkaReport, folder: Path) -> list[str]:
    """Curves by layer with their spread over draws of the inputs, and a heat map of all layers for each pair."""
    with drawing() as plt:
        names = []
        if any(item.curve for item in report.comparisons):
            save_figure(_curves(plt, report), folder, "curves")
            names.append("curves")
        save_figure(_maps(plt, report), folder, "layers_by_layers")
        return [*names, "layers_by_layers"]


def _curves(plt: Any, report: CkaReport) -> Any:
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for k, item in enumerate(report.comparisons):
        if item.curve is None:
            continue
        value, std = (np.array(values, dtype=float) for values in (item.curve.value, item.curve.std))
        states = np.arange(len(value))
        axis.plot(states, value, **line_style(k), label=_name(item))
        axis.fill_between(states, value - std, value + std, color=COLOURS[k], alpha=0.2, linewidth=0)
    axis.set(xlabel="hidden state (0: embeddings; last: after the final norm)", ylabel="linear CKA")
    axis.legend()
    figure.text(
        0.99, 0.0, "band: standard deviation over draws of the inputs, without replacement", ha="right", fontsize=7
    )
    figure.tight_layout()
    return figure


def _maps(plt: Any, report: CkaReport) -> Any:
    count = len(report.comparisons)
    figure, axes = plt.subplots(1, count, figsize=(3.2 * count + 0.8, 3.4), squeeze=False, layout="constrained")
    grids = [np.array(item.matrix, dtype=float) for item in report.comparisons]
    lowest = min(float(np.nanmin(grid)) for grid in grids)
    for axis, item, grid in zip(axes[0], report.comparisons, grids, strict=True):
        shown = axis.imshow(
            grid, cmap=SEQUENTIAL, vmin=np.floor(10 * lowest) / 10, vmax=1, origin="lower", interpolation="nearest"
        )
        axis.set(ylabel=f"state of {item.pair[0]}", xlabel=f"state of {item.pair[1]}")
        axis.grid(False)
    figure.colorbar(shown, ax=list(axes[0]), label="linear CKA", shrink=0.8)
    return figure

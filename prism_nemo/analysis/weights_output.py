"""Tables, figures and the paper's numbers for `compare_weights`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prism_nemo.analysis.output import Output, produce
from prism_nemo.analysis.paper import beside
from prism_nemo.analysis.style import COLOURS, HATCHES, SEQUENTIAL, drawing, line_style, save_figure
from prism_nemo.analysis.tally import Change
from prism_nemo.analysis.weights import WeightReport, compare_weights
from prism_nemo.checkpoints.components import GROUPS

PAPER_TABLES = ("Table 12", "Table 13", "Table 22", "Table 23", "Sec 10.1", "Fig 12")
PARTS: Mapping[str, Sequence[str]] = {
    "attn": ("attention.q", "attention.k", "attention.v", "attention.o"),
    "mlp": GROUPS["mlp"],
    "mamba": GROUPS["mamba"],
    "embed_lm_head": GROUPS["embedding"],
    "norm": ("norm",),
    "mamba_a_dt": ("mamba.A_log", "mamba.dt_bias"),
    "overall": (),
    "total": (),
}
"""The paper's names for groups -> our components; none for everything."""


def analyse_weights(
    out: Path, points: Mapping[str, Path], *, ignore: Sequence[str] = (), paper: str | None = None, force: bool = False
) -> dict[str, Any]:
    """`compare_weights` as an artifact at `out`. `points`: label -> Hugging Face directory, two or three, in order.

    `paper`: a model of the paper to stand beside; transitions are matched when the labels are base, mt and rl.
    """
    parameters = {"labels": list(points), "ignore": list(ignore), "paper": paper}

    def make() -> Output:
        report = compare_weights(*points.values(), labels=tuple(points), ignore=ignore)
        return weights_output(report, paper=paper)

    return produce(out, "weights", parameters, points, make, force=force)


def weights_output(report: WeightReport, *, paper: str | None = None) -> Output:
    """What is written for a report."""
    rows = [_row(change) for change in report.changes]
    tables: dict[str, list[dict[str, Any]]] = {
        scope: [row for row in rows if row["scope"] == scope]
        for scope in ("total", "group", "component", "layer", "cell", "tensor")
    }
    tables["ulp"] = [row for change in report.changes if change.scope != "tensor" for row in _ulp_rows(change)]
    if report.common:
        tables["cosine"] = [dataclasses.asdict(item) for item in report.common]
    totals = {change.transition: change for change in report.changes if change.scope == "total"}
    return Output(
        title="What training did to the weights",
        report=report.to_json(),
        tables={name: table for name, table in tables.items() if table},
        draw=lambda folder: draw_weights(report, folder),
        shown=["total", "component"],
        paper=beside(paper, PAPER_TABLES, lambda record: _ours(report, record)) if paper else (),
        notes=report.notes,
        metrics={name: {"l2": change.l2, "bit_equal": change.bit_equal} for name, change in totals.items()},
    )


def _row(change: Change) -> dict[str, Any]:
    first = ("transition", "scope", "name", "tensors", "elements", "compared", "l2", "l2_tensor_mean")
    row = {name: getattr(change, name) for name in (*first, "l2_tensor_mean_by_size", "zero_norm_tensors", "bit_equal")}
    row |= {f"unchanged_{label}%": share for label, share in change.unchanged.items()}
    row |= {f"unchanged_{label}%_tensor_mean": share for label, share in change.unchanged_tensor_mean.items()}
    for end, counts in (("old", change.specials_old), ("new", change.specials_new)):
        row |= {f"{special}_{end}": count for special, count in counts.items()}
    return row


def _ulp_rows(change: Change) -> list[dict[str, Any]]:
    where = {"transition": change.transition, "scope": change.scope, "name": change.name}
    return [
        where | {"dtype": dtype, "steps": steps, "elements": count}
        for dtype, bins in change.ulp.items()
        for steps, count in bins.items()
    ]


def _members(report: WeightReport, transition: str, part: str) -> list[Change]:
    if not PARTS.get(part, (part,)):
        return [report.find(transition, "total")]
    components = PARTS.get(part) or (_component(part),)
    rows = [row for row in report.changes if (row.transition, row.scope) == (transition, "component")]
    return [row for row in rows if row.name in components]


def _component(part: str) -> str:
    """Our name of one of the paper's components, such as `attn_q`."""
    return part.replace("attn_", "attention.").replace("mlp_", "mlp.").replace("mamba_", "mamba.")


def _ours(report: WeightReport, record: Mapping[str, Any]) -> dict[str, float | None] | None:
    """Our figures for a record of the paper; None when this report has no such transition or component."""
    transition = " -> ".join(record["stage"].split("_to_"))
    if record["stage"] == "base_to_rl" and len(report.labels) > 2:
        return None  # the paper's is RL on the base itself, ours went over MT
    kind, _, part = str(record["benchmark"]).partition("_")
    if kind == "cos":
        return _our_cosine(report, part.removeprefix("update_"))
    if transition not in {row.transition for row in report.changes}:
        return None
    threshold, _, part = part.partition("pct") if kind in ("unchanged", "changed") else ("", "", part)
    members = _members(report, transition, part.strip("_") or "total")
    if not members:
        return None
    if kind == "l2":
        group = {"attn": "attention"}.get(part, part)
        row = members[0] if part == "total" else report.find(transition, "group", group)
        return {"ours_element_weighted": row.l2, "ours_mean_of_tensors": row.l2_tensor_mean}
    shares = [
        _combine([(row.unchanged[threshold], row.compared) for row in members]),
        _combine([(row.unchanged_tensor_mean[threshold], row.tensors) for row in members]),
    ]
    percent = [None if share is None else 100 * (share if kind == "unchanged" else 1 - share) for share in shares]
    return {"ours_element_weighted": percent[0], "ours_mean_of_tensors": percent[1]}


def _combine(parts: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(share, weight) for share, weight in parts if share is not None]
    total = sum(weight for _, weight in known)
    return sum(share * weight for share, weight in known) / total if total else None


def _our_cosine(report: WeightReport, part: str) -> dict[str, float | None] | None:
    """Only the paper's own comparison: two mixtures from one base, called mc and mcs."""
    if report.labels[1:] != ("mc", "mcs"):
        return None
    groups = {"embed_lm_head": ("group", "embedding"), "overall": ("total", "")}
    scope = groups.get(part, ("component", _component(part)))
    found = [item for item in report.common if (item.scope, item.name) == scope]
    return {"ours_element_weighted": found[0].cosine_common_origin, "ours_mean_of_tensors": None} if found else None


def draw_weights(report: WeightReport, folder: Path) -> list[str]:
    """The figures: per component, thresholds and steps, layer by component, and the cosines of three points."""
    with drawing() as plt:
        save_figure(_by_component(plt, report), folder, "components")
        save_figure(_shares(plt, report), folder, "shares")
        save_figure(_by_layer(plt, report), folder, "layers")
        if not report.common:
            return ["components", "shares", "layers"]
        save_figure(_cosines(plt, report), folder, "cosines")
        return ["components", "shares", "layers", "cosines"]


def _transitions(report: WeightReport) -> list[str]:
    return list(dict.fromkeys(row.transition for row in report.changes))


def _components(report: WeightReport) -> list[str]:
    present = {row.name for row in report.changes if row.scope == "component"}
    return [name for members in GROUPS.values() for name in members if name in present]


def _by_component(plt: Any, report: WeightReport) -> Any:
    names, transitions = _components(report), _transitions(report)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 0.28 * len(names) + 1.4), sharey=True)
    for k, transition in enumerate(transitions):
        rows = [report.find(transition, "component", name) for name in names]
        style = {**line_style(k), "linestyle": "none", "label": transition}
        left.plot([row.l2 if row.l2 else np.nan for row in rows], range(len(names)), **style)
        changed = [np.nan if row.bit_equal is None else 100 * (1 - row.bit_equal) for row in rows]
        right.plot(changed, range(len(names)), **style)
    left.set(xscale="log", xlabel="relative L2 change of the component", yticks=range(len(names)), yticklabels=names)
    left.invert_yaxis()
    right.set(xlim=(-3, 103), xlabel="elements whose bits changed, %")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(transitions))
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    return figure


def _shares(plt: Any, report: WeightReport) -> Any:
    totals = [report.find(transition, "total") for transition in _transitions(report)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    for k, row in enumerate(totals):
        left.plot([float(p) for p in row.unchanged], [100 * (s or 0) for s in row.unchanged.values()], **line_style(k))
    left.set(xscale="log", xlabel="relative threshold, %", ylabel="elements unchanged, %", ylim=(-3, 103))
    left.set_xticks([0.1, 0.5, 1, 2, 5, 10], ["0.1", "0.5", "1", "2", "5", "10"])
    left.minorticks_off()
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": len(totals), "fontsize": 7}
    left.legend([row.transition for row in totals], **above)
    dtype = max(report.dtypes, key=lambda name: report.dtypes[name])
    width = 0.8 / len(totals)
    bins = _short(list(totals[0].ulp[dtype]))
    for k, row in enumerate(totals):
        counts = np.array(list(row.ulp[dtype].values()))
        counts = np.append(counts[: len(bins) - 1], counts[len(bins) - 1 :].sum())
        shares = 100 * counts / max(counts.sum(), 1)
        places = np.arange(len(bins)) + (k - (len(totals) - 1) / 2) * width
        style = {"color": COLOURS[k], "hatch": HATCHES[k], "edgecolor": "white", "label": row.transition}
        right.bar(places, shares, width, **style)
    right.legend(**above)
    right.set(xlabel=f"distance in {dtype} steps (ulp)", ylabel="elements, %")
    right.set_xticks(range(len(bins)), bins, rotation=60, ha="right")
    figure.tight_layout()
    return figure


def _short(bins: list[str], most: int = 14) -> list[str]:
    """The first bins, and one for all beyond: fp32 has more steps than a figure has room."""
    return bins if len(bins) <= most else [*bins[: most - 1], ">" + bins[most - 2].split("-")[-1]]


def _by_layer(plt: Any, report: WeightReport) -> Any:
    """Relative L2 of each component of each layer; one panel per transition, on one logarithmic scale."""
    from matplotlib.colors import LogNorm

    cells = {(row.transition, row.name): row.l2 for row in report.changes if row.scope == "cell"}
    names = [name for name in _components(report) if any(key.endswith(f" {name}") for _, key in cells)]
    layers = sorted({int(key.split()[0]) for _, key in cells})
    transitions = _transitions(report)
    grids = [
        np.array([[cells.get((transition, f"{layer} {name}")) or np.nan for layer in layers] for name in names], float)
        for transition in transitions
    ]
    values = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    height = 0.22 * len(names) + 0.9
    figure, axes = plt.subplots(len(grids), 1, figsize=(8, height * len(grids)), squeeze=False, layout="constrained")
    norm = LogNorm(values.min(), max(values.max(), values.min() * 1.01)) if values.size else None
    for axis, grid, transition in zip(axes[:, 0], grids, transitions, strict=True):
        shown = axis.imshow(grid, aspect="auto", cmap=SEQUENTIAL, norm=norm, interpolation="nearest")
        axis.set(title=transition, yticks=range(len(names)), yticklabels=names)
        step = max(1, len(layers) // 20)
        axis.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
        axis.grid(False)
        axis.patch.set(facecolor="white", hatch="////", edgecolor="#BBBBBB", linewidth=0)
    axes[-1, 0].set_xlabel("layer (hatched: no such component, or bit-equal)")
    if values.size:
        figure.colorbar(shown, ax=list(axes[:, 0]), label="relative L2 change")
    return figure


def _cosines(plt: Any, report: WeightReport) -> Any:
    wanted = ["", *_components(report)]
    found = {item.name: item for item in report.common if item.scope in ("total", "component")}
    a, b, c = report.labels
    figure, axis = plt.subplots(figsize=(6, 0.28 * len(wanted) + 1.2))
    first = f"({b} - {a})"
    both = ((f"{first} and ({c} - {b})", "cosine_successive"), (f"{first} and ({c} - {a})", "cosine_common_origin"))
    for k, (label, name) in enumerate(both):
        values = [getattr(found[item], name) for item in wanted]
        style = {**line_style(k), "linestyle": "none", "label": label}
        axis.plot([np.nan if value is None else value for value in values], range(len(wanted)), **style)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(yticks=range(len(wanted)), yticklabels=["all", *wanted[1:]])
    axis.set(xlabel="cosine of the two updates", xlim=(-1.05, 1.05))
    axis.invert_yaxis()
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure

"""How the weights travel during RL, checkpoint by checkpoint: distance, active sets (paper, figure 16)."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_nemo.analysis.tally import Change
from prism_nemo.analysis.weights import compare_weights, reading_notes
from prism_nemo.errors import InputError

SCOPES = ("total", "group", "component")
FRONT = 0.8
"""Share of the final distance whose step says how front-loaded a run is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One scope at one checkpoint, against the start of the run."""

    step: int
    scope: str
    """total, group or component."""
    name: str
    l2: float | None
    """||W_step - W_start|| / ||W_start|| of the scope as one vector."""
    changed: float | None
    """Share of elements whose bits differ from the start."""
    changed_1pct: float | None
    """Share of elements beyond 1 % relative change, the paper's measure."""
    kept: float | None
    """Share of the elements that differed at the checkpoint before and still differ; None at the first one."""
    overlap: float | None
    """Elements that differ from the start at this checkpoint and the one before, over those that do at either."""
    l2_before: float | None
    """||W_step - W_before|| / ||W_before||: length of the last leg."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """How front-loaded a scope's movement is."""

    scope: str
    name: str
    step: float | None
    """Where the distance from the start first reaches 80 % of the final one, between checkpoints interpolated."""
    checkpoint: int | None
    """The first checkpoint at or beyond that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryReport:
    """A run's checkpoints against its start."""

    start: str
    steps: Sequence[int]
    rows: Sequence[Step]
    fronts: Sequence[Front]
    notes: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def find_checkpoints(run: Path) -> dict[int, Path]:
    """Step -> Hugging Face folder, of `run` itself or its `checkpoints`, by the number at the end of a folder's name.

    A checkpoint may lie in the step's folder or in its `hf` or `policy` below. Raises InputError for fewer than two.
    """
    found: dict[int, Path] = {}
    for parent in (run, run / "checkpoints"):
        for folder in sorted(parent.glob("*[0-9]")) if parent.is_dir() else ():
            number = re.search(r"(\d+)$", folder.name)
            places = [
                place for place in (folder, folder / "hf", folder / "policy") if (place / "config.json").is_file()
            ]
            if number and places:
                found[int(number.group(1))] = places[0]
    if len(found) < 2:
        raise InputError(
            f"{run} has {len(found)} checkpoints (folders such as step_20 with a config.json); 2 are needed"
        )
    return dict(sorted(found.items()))


def measure_trajectory(
    start: Path,
    checkpoints: Mapping[int, Path],
    *,
    ignore: Sequence[str] = (),
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrajectoryReport:
    """Every checkpoint (step -> folder) against `start` and against the one before it; each is streamed."""
    rows: list[Step] = []
    before: dict[str, Path] = {}
    totals: list[Change] = []
    dtypes: dict[str, int] = {}
    notes: list[str] = []
    for number, (step, folder) in enumerate(sorted(checkpoints.items())):
        points = {"start": start, **before, f"step {step}": folder}
        report = compare_weights(*points.values(), labels=tuple(points), ignore=ignore, threads=threads)
        rows += [row for scope in SCOPES for row in _steps(step, scope, report)]
        totals += [row for row in report.changes if row.scope == "total"]
        notes += [note for note in report.notes if note not in reading_notes(report.changes, report.dtypes)]
        dtypes |= report.dtypes
        before = {f"step {step}": folder}
        progress(number + 1, len(checkpoints))
    notes = [*dict.fromkeys(notes), *reading_notes(totals, dtypes)]
    return TrajectoryReport(start=str(start), steps=sorted(checkpoints), rows=rows, fronts=_fronts(rows), notes=notes)


def _steps(step: int, scope: str, report: Any) -> list[Step]:
    found = {(row.transition, row.name): row for row in report.changes if row.scope == scope}
    start, *earlier_points, now = report.labels
    before = "".join(earlier_points)
    both = {item.name: item for item in report.common if item.scope == scope}
    steps = []
    for (transition, name), row in found.items():
        if transition != f"{start} -> {now}":
            continue
        earlier: Change | None = found.get((f"{start} -> {before}", name))
        leg: Change | None = found.get((f"{before} -> {now}", name))
        shared = both[name].differ_at_both if name in both else None
        then = _moved(earlier)
        steps.append(
            Step(
                step=step,
                scope=scope,
                name=name,
                l2=row.l2,
                changed=_moved(row),
                changed_1pct=None if row.unchanged["1"] is None else 1 - row.unchanged["1"],
                kept=_ratio(shared, then),
                overlap=_jaccard(shared, then, _moved(row)),
                l2_before=leg.l2 if leg else None,
            )
        )
    return steps


def _moved(row: Change | None) -> float | None:
    return None if row is None or row.bit_equal is None else 1 - row.bit_equal


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _jaccard(shared: float | None, first: float | None, second: float | None) -> float | None:
    if shared is None or first is None or second is None:
        return None
    return _ratio(shared, first + second - shared)


def _fronts(rows: Sequence[Step]) -> list[Front]:
    scopes = dict.fromkeys((row.scope, row.name) for row in rows)
    return [
        front_of(scope, name, [(row.step, row.l2) for row in rows if (row.scope, row.name) == (scope, name)])
        for scope, name in scopes
    ]


def front_of(scope: str, name: str, curve: Sequence[tuple[int, float | None]]) -> Front:
    """Where a curve of (step, distance) first reaches 80 % of its last value; the start (0, 0) belongs to it."""
    known = [(0, 0.0), *((step, value) for step, value in curve if value is not None and step > 0)]
    goal = FRONT * known[-1][1]
    if not goal:
        return Front(scope=scope, name=name, step=None, checkpoint=None)
    index = next(k for k, (_, value) in enumerate(known) if value >= goal)
    (x0, y0), (x1, y1) = known[index - 1], known[index]
    return Front(scope=scope, name=name, step=x0 + (x1 - x0) * (goal - y0) / (y1 - y0), checkpoint=x1)

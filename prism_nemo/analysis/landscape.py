"""Pass rate between checkpoints (paper, equation 3, figure 13): along base -> MT -> RL, and on a plane through them.

Each point is a merge made on the fly, scored through the generation store, and deleted: one model is on disk at a
time. A point that is a checkpoint itself is not merged but scored as it is, so its samples are shared with every other
evaluation of it.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import fingerprint, path_fingerprint, write_whole
from prism_nemo.checkpoints.hf_folder import carried_files, open_hf
from prism_nemo.checkpoints.merge import Weights as MergeWeights
from prism_nemo.checkpoints.merge import blend, coefficients, open_models
from prism_nemo.errors import InputError

POINTS = ("base", "mt", "rl")
PATH = (0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1, 1.25, 1.5, 1.75, 2)
"""Positions of the paper: 0 is the base, 1 MT, 2 RL; seven up to MT, four beyond."""
GRID = (-0.3, 0.1, 0.5, 0.9, 1.3)
"""Nodes of each axis, as read off the paper's figure (unverified): 5 x 5 with MT as the origin, axes MT -> RL and
MT -> base. MT, RL and base lie between nodes; their rates are those of the path."""
Scorer = Callable[[Path], "PassRate"]
"""Scores the model in a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRate:
    """How a model did."""

    value: float
    """Mean over questions of the share of right samples, 0 to 1."""
    low: float
    """95 % interval over questions."""
    high: float
    questions: int
    samples: int
    median_tokens: float
    """Of the answers; with several benchmarks the median of theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A model between the checkpoints."""

    kind: str
    """path or grid."""
    x: float
    """path: position, 0 base, 1 MT, 2 RL; grid: along MT -> RL."""
    y: float
    """grid: along MT -> base."""
    weights: tuple[float, float, float]
    """Of base, MT and RL; they sum to 1."""
    rate: PassRate


@dataclass(frozen=True, slots=True, kw_only=True)
class LandscapeReport:
    """All points."""

    paths: tuple[str, ...]
    points: Sequence[Point]
    notes: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def path_weights(position: float) -> tuple[float, float, float]:
    """Weights of base, MT, RL at a position of the path. Raises InputError outside 0..2."""
    if not 0 <= position <= 2:
        raise InputError(f"path position {position}: from 0 (base) over 1 (MT) to 2 (RL)")
    first, second = min(position, 1.0), max(position - 1.0, 0.0)
    return (1 - first, first - second, second)


def grid_weights(to_rl: float, to_base: float) -> tuple[float, float, float]:
    """Weights of base, MT, RL at MT + to_rl (RL - MT) + to_base (base - MT); beyond 0..1 it extrapolates."""
    return (to_base, 1 - to_rl - to_base, to_rl)


def measure_landscape(
    base: Path,
    mt: Path,
    rl: Path,
    scorer: Scorer,
    *,
    asked: Mapping[str, Any],
    work: Path,
    path: Sequence[float] = PATH,
    grid: Sequence[float] = GRID,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LandscapeReport:
    """Pass rates along the path and on the grid (either may be empty).

    Finished points are kept under `work`, keyed by the checkpoints, the weights and `asked` (whatever decides a score:
    questions, samples, sampling), so a stopped run goes on with the next point. Points with equal weights are one.
    Raises InputError for checkpoints that cannot be merged.
    """
    if not (path or grid):
        raise InputError("neither the path nor the grid: nothing is left to measure")
    folders = [Path(folder) for folder in (base, mt, rl)]
    open_models(folders)
    mark = {"models": [path_fingerprint(folder) for folder in folders], "asked": dict(asked)}
    work.mkdir(parents=True, exist_ok=True)
    places = [*(("path", x, 0.0, path_weights(x)) for x in path)]
    places += [("grid", x, y, grid_weights(x, y)) for y in grid for x in grid]
    points = []
    for number, (kind, x, y, weights) in enumerate(places):
        weights = tuple(round(weight, 12) for weight in weights)  # type: ignore[assignment]
        rate = _rate(folders, weights, scorer, work, fingerprint({**mark, "weights": list(weights)}))
        points.append(Point(kind=kind, x=x, y=y, weights=weights, rate=rate))
        progress(number + 1, len(places))
    between = "the grid's nodes are read off the paper's figure; MT, its origin, RL and base lie between them"
    notes = [between] if grid else []
    return LandscapeReport(paths=tuple(map(str, folders)), points=points, notes=notes)


def _rate(folders: Sequence[Path], weights: tuple[float, ...], scorer: Scorer, work: Path, key: str) -> PassRate:
    known = work / f"{key}.json"
    if known.is_file():
        return PassRate(**json.loads(known.read_text()))
    rate = _score(folders, weights, scorer, work / f"{key}.model")
    write_whole(known, json.dumps(dataclasses.asdict(rate)) + "\n")
    return rate


def _score(folders: Sequence[Path], weights: tuple[float, ...], scorer: Scorer, merged: Path) -> PassRate:
    if 1.0 in weights and not any(weight for weight in weights if weight != 1.0):
        return scorer(folders[weights.index(1.0)])
    shutil.rmtree(merged, ignore_errors=True)
    model = merged / "_".join(["landscape", *(f"{weight:g}" for weight in weights)])  # its name in the store
    model.mkdir(parents=True)
    try:
        merge_into(model, folders, weights)
        return scorer(model)
    finally:
        shutil.rmtree(merged, ignore_errors=True)


def merge_into(folder: Path, folders: Sequence[Path], weights: Sequence[float]) -> None:
    """A plain linear merge with its configuration and tokenizer (the first one's), no artifact."""
    used = [(path, weight) for path, weight in zip(folders, weights, strict=True) if weight]
    models = [open_hf(path) for path, _ in used]
    given = MergeWeights(models=tuple(weight for _, weight in used), components={})
    blend(models, folder, coefficients("linear", given, len(models), any_sum=True))
    first = open_hf(folders[0])
    (folder / "config.json").write_text(json.dumps(first.config, indent=2) + "\n")
    for file in carried_files(first.path):
        shutil.copyfile(file, folder / file.name)


def rows(report: LandscapeReport, kind: str) -> Iterator[dict[str, Any]]:
    """Flat rows of the points of one kind, for tables."""
    for point in report.points:
        if point.kind == kind:
            where = {"x": point.x, "y": point.y} if kind == "grid" else {"position": point.x}
            weights = {f"weight_{name}": weight for name, weight in zip(POINTS, point.weights, strict=True)}
            yield where | weights | {"pass_rate": point.rate.value, **_rest(point.rate)}


def _rest(rate: PassRate) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(rate).items() if key != "value"}

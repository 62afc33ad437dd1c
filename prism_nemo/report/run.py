"""A run folder read for the report: what is there is read, what is not stays None."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prism_nemo.artifacts import Manifest, path_fingerprint, read_manifest
from prism_nemo.errors import InputError

ARMS = ("base", "rl_base", "mt", "rl")
"""The four arms in the order of every table."""
LABELS = {
    "base": "base",
    "rl_base": "base + RL",
    "mt": "MT",
    "rl": "MT + RL",
    "merge": "merge",
    "long_context": "merge + LC",
    "long_context_attention": "merge + LC, attention",
}
NOT_READ = ("report", "generations")
"""Folders of a run that are no input of a report: itself, and the store that `evaluate` read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run folder. Shares are fractions of 1, times are seconds."""

    path: Path
    name: str
    recipe: Mapping[str, Any]
    """The resolved recipe."""
    order: Sequence[str]
    """Names of the stages, in the order of the chain."""
    records: Mapping[str, Mapping[str, Any]]
    """Stage -> `.stages/NAME.json`."""
    manifests: Mapping[str, Manifest]
    """Stage -> manifest of its finished artifact."""
    fingerprints: Mapping[str, str]
    """Stage -> content fingerprint of its artifact, as `prism artifact lineage` prints it."""
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    """Stage -> lines of its progress.jsonl, also of a stage that still runs. Of RL in NeMo-RL, whose steps our
    environment does not know, a line per `batch` of rollouts."""
    blends: Mapping[str, Mapping[str, Any]]
    """Stage -> report of the data room."""
    proofs: Mapping[str, Mapping[str, Any]]
    """Stage -> proof of the conversion."""
    analyses: Mapping[str, Mapping[str, Any]]
    """weights, cka, landscape, ... -> report of the analysis."""
    scores: Mapping[str, Any] | None
    """`evaluate/scores.json`: the four arms, differences, retention, protocol."""

    @property
    def recipe_text(self) -> str:
        """The resolved recipe as YAML."""
        return str(yaml.safe_dump(dict(self.recipe), sort_keys=False, allow_unicode=True))

    @property
    def rehearsal(self) -> bool:
        """Whether the model is a pico one, whose scores no paper has."""
        return bool(self.recipe.get("model", {}).get("pico"))

    @property
    def arms(self) -> list[str]:
        """The arms that have scores, in the order of the table."""
        found = (self.scores or {}).get("arms", {})
        return [arm for arm in ARMS if arm in found] + [arm for arm in found if arm not in ARMS]

    @property
    def domains(self) -> list[str]:
        """Domains with scores, in the order they were written."""
        arms = (self.scores or {}).get("arms", {})
        return list(dict.fromkeys(domain for arm in arms.values() for domain in arm["domains"]))

    @property
    def benchmarks(self) -> dict[str, Mapping[str, Any]]:
        """Benchmark -> how it was asked (and how the first arm did), in the order they were run."""
        arms = (self.scores or {}).get("arms", {})
        return {name: found for arm in reversed(arms.values()) for name, found in arm.get("benchmarks", {}).items()}

    @property
    def averages(self) -> dict[str, str]:
        """Average in `scores.json` -> its name in tables: the two of a suite under their own."""
        arms = (self.scores or {}).get("arms", {})
        names = {"mean": "mean"} if self.rehearsal else {"avg3": "avg3", "avg6": "avg6"}
        return {key: name for key, name in names.items() if any(key in arm for arm in arms.values())}

    @property
    def seconds(self) -> float:
        """Of all stages together."""
        return sum(spent(record) for record in self.records.values())

    @property
    def gpu_seconds(self) -> float:
        """Time of each stage that needs GPUs, times its ranks."""
        return sum(record.get("gpus", 0) * spent(record) for record in self.records.values())


def spent(record: Mapping[str, Any]) -> float:
    """Seconds of a stage, with those of processes before that were cut off."""
    return float(record.get("seconds", 0.0) + record.get("earlier", 0.0))


def label(arm: str) -> str:
    """The name of an arm, of another point, or of the stage that made it, in tables."""
    return LABELS.get(arm.removesuffix("_hf"), arm)


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises InputError when it is none or a file in it is damaged."""
    recipe = folder / "recipe.yaml"
    if not recipe.is_file():
        raise InputError(f"{folder} holds no run: it has no recipe.yaml; give the folder of a `prism run`")
    records = {path.stem: read_json(path) for path in sorted((folder / ".stages").glob("*.json"))}
    order = _order(folder, records)
    parts = {name: folder / name for name in order if (folder / name / "artifact.json").is_file()}
    settings = yaml.safe_load(recipe.read_text())
    return Run(
        path=folder,
        name=settings.get("name") or folder.name,
        recipe=settings,
        order=order,
        records=records,
        manifests={name: read_manifest(part) for name, part in parts.items()},
        fingerprints={name: path_fingerprint(part) for name, part in parts.items()},
        curves={name: lines for name in order if (lines := _progress(folder, name))},
        blends=_reports(parts, "report.json", kinds=("blend",)),
        proofs=_reports(parts, "proof.json"),
        analyses=_analyses(parts),
        scores=_scores(parts),
    )


def read_json(path: Path) -> Any:
    """The JSON of a file. Raises InputError naming the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON ({error}); make the stage anew with --force") from None


def _order(folder: Path, records: Mapping[str, Any]) -> list[str]:
    written = folder / ".stages" / "order.txt"
    listed = written.read_text().split() if written.is_file() else []
    found = {path.parent.name for path in folder.glob("*/artifact.json")} | set(records)
    late = sorted(found - set(listed), key=lambda name: records.get(name, {}).get("started", 0.0))
    return [name for name in [*listed, *late] if name not in NOT_READ]


def _progress(folder: Path, stage: str) -> list[dict[str, Any]]:
    """Of the finished artifact or of its draft; of NeMo-RL the rewards that our environment logs, a line a batch."""
    for place in (folder / stage, folder / f".{stage}.partial"):
        if (place / "progress.jsonl").is_file():
            return _lines(place / "progress.jsonl")
    rewards = folder / f"{stage}.nemo_rl" / "rewards.jsonl"
    if not rewards.is_file():
        return []
    return [{"step": number, "batch": number, **line} for number, line in enumerate(_lines(rewards), 1)]


def _lines(path: Path) -> list[dict[str, Any]]:
    """A line cut by a kill is left out."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _reports(parts: Mapping[str, Path], file: str, kinds: Sequence[str] = ()) -> dict[str, Any]:
    wanted = {name: part for name, part in parts.items() if (part / file).is_file()}
    return {
        name: read_json(part / file) for name, part in wanted.items() if not kinds or read_manifest(part).kind in kinds
    }


def _analyses(parts: Mapping[str, Path]) -> dict[str, Any]:
    found = {}
    for name, part in parts.items():
        manifest = read_manifest(part)
        if manifest.kind == "analysis" and (part / "report.json").is_file():
            found[str(manifest.parameters.get("analysis", name))] = read_json(part / "report.json") | {"stage": name}
    return found


def _scores(parts: Mapping[str, Path]) -> dict[str, Any] | None:
    for part in parts.values():
        if (part / "scores.json").is_file():
            return dict(read_json(part / "scores.json"))
    return None

"""What training took away: Open LLM Leaderboard V1 and V2 and RULER through lm-evaluation-harness, task by task.

Averages hide losses (the paper's Granite-3.3: HellaSwag -5 behind GSM8K +18), so each task is shown against the base
with a paired interval over its documents, and flagged where the loss is real. Answers and likelihoods are kept as they
come (`harness`): a killed run goes on where it was.
"""

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_nemo.artifacts.fingerprint import file_hash, fingerprint
from prism_nemo.errors import InputError
from prism_nemo.evaluation.apart import APART, Progress, gpus, see_only, side_by_side
from prism_nemo.evaluation.averages import beside_scores, combine
from prism_nemo.evaluation.identity import model_facts, model_files
from prism_nemo.evaluation.leaderboards import SUITES, Task, missing_harness
from prism_nemo.evaluation.protocol import Prompting
from prism_nemo.evaluation.statistics import Estimate
from prism_nemo.evaluation.store import GenerationStore


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScores:
    """One model on one task, document by document."""

    name: str
    model: str
    """Fingerprint."""
    documents: Mapping[str, Mapping[str, float]]
    """Subtask -> document (its number and the hash of its text) -> score, normalised where the task is."""
    by_part: bool
    harness_version: str
    cut: int = 0
    """Prompts that were longer than the model's context and lost their beginning."""

    def weights(self) -> dict[str, float]:
        """Share of each subtask in the score."""
        total = sum(map(len, self.documents.values()))
        even = 1 / len(self.documents)
        return {part: even if self.by_part else len(found) / total for part, found in self.documents.items()}

    def estimate(self) -> Estimate:
        return _score({part: list(found.values()) for part, found in self.documents.items()}, self.weights())


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """One task, base and tuned. Fractions of 1."""

    name: str
    base: Estimate
    tuned: Estimate
    difference: Estimate
    """tuned - base on the same documents."""
    cut: int = 0
    """Prompts of either model that were longer than its context and lost their beginning."""

    @property
    def lost(self) -> bool:
        """The loss is real: the whole 95 % interval is below 0."""
        return self.difference.high < 0


def run_retention(
    model_dir: Path,
    tasks: Sequence[Task],
    folder: Path,
    *,
    backend: str = "hf",
    url: str = "",
    served: str = "",
    tensor_parallel: int = 1,
    timeout_seconds: float = 3600.0,
    limit: int | None = None,
    task_folder: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> list[TaskScores]:
    """Scores of a Hugging Face directory; finished tasks in FOLDER/retention are read, not run again.

    `folder` is a generation store, where the answers go. `backend`: hf, vllm or openai (`url`, and `served`, the name
    there); it is opened only when something has to be run, vLLM in a process per GPU, which share the tasks; it asks
    raw. `limit`: documents per subtask, for a quick look. `task_folder`: task files in place of the harness's. What was
    done with another backend, limit, task folder or version of the harness is kept apart. Raises InputError for a bad
    model directory, an unknown task, or too few positions.
    """
    model_files(model_dir)
    _no_remote_code(model_dir)
    through = (model_dir, folder, backend, url, served, tensor_parallel, timeout_seconds, limit, task_folder)
    if backend in APART:
        devices = gpus() if tensor_parallel == 1 else []
        shares = [tasks[number :: max(1, len(devices))] for number in range(max(1, len(devices)))]
        calls = [(*through, share, device) for share, device in zip(shares, devices or [""], strict=True) if share]
        found = [score for scores in side_by_side(_run, calls, progress=progress) for score in scores]
    else:
        found = _run(*through, tasks, "", progress=progress)
    by_name = {score.name: score for score in found}
    return [by_name[task.name] for task in tasks]


def _run(
    model_dir: Path,
    folder: Path,
    backend: str,
    url: str,
    served: str,
    tensor_parallel: int,
    timeout_seconds: float,
    limit: int | None,
    task_folder: Path | None,
    tasks: Sequence[Task],
    device: str,
    *,
    progress: Progress,
) -> list[TaskScores]:
    see_only(device)
    with GenerationStore(folder) as store:
        facts = model_facts(model_dir, store.described("models"))
        home = folder / "retention" / facts["fingerprint"] / _conditions(backend, task_folder)
        home.mkdir(parents=True, exist_ok=True)
        about = {"path": str(model_dir.resolve()), "fingerprint": facts["fingerprint"]}
        (home.parent / "model.json").write_text(json.dumps(about))
        places = [home / (f"{task.name}.limit_{limit}.json" if limit else f"{task.name}.json") for task in tasks]
        if not all(place.is_file() for place in places):
            from prism_nemo.evaluation.backends import open_backend
            from prism_nemo.evaluation.harness import Harness

            asking = Prompting()
            name = served or str(model_dir)
            model = open_backend(backend, name, asking, store, url, model_dir, tensor_parallel, timeout_seconds)
            harness = Harness(model, model_dir, store, home, task_folder=task_folder, progress=progress)
            for task, place in zip(tasks, places, strict=True):
                if not place.is_file():
                    _write(place, _scores(task, facts["fingerprint"], *harness.run(task, limit)))
    return [read_scores(place) for place in places]


def _conditions(backend: str, task_folder: Path | None) -> str:
    """A folder's name for what changes scores besides the model: the backend, the harness, other task files."""
    try:
        version = importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        raise missing_harness() from None
    files = sorted(task_folder.glob("*.yaml")) if task_folder else []
    own = f"-{fingerprint({path.name: file_hash(path) for path in files})[:12]}" if files else ""
    return f"{backend}-lm-eval-{version}{own}"


def _no_remote_code(model_dir: Path) -> None:
    """The harness's RULER loads tokenizers with trust_remote_code=True."""
    for name in ("config.json", "tokenizer_config.json"):
        path = model_dir / name
        if path.is_file() and "auto_map" in json.loads(path.read_text()):
            raise InputError(f"{path} names code of its own (auto_map); retention runs transformers' own classes only")


def _scores(
    task: Task, mark: str, samples: Mapping[str, Sequence[Mapping[str, Any]]], version: str, cut: int = 0
) -> TaskScores:
    documents: dict[str, dict[str, float]] = {}
    for part, rows in samples.items():
        chosen = [row for row in rows if row.get("filter", "none") == task.filter and row.get(task.metric, -1) >= 0]
        found = {f"{row['doc_id']}/{row['doc_hash'][:12]}": float(row[task.metric]) for row in chosen}
        if task.normalised and chosen:
            chance = sum(1 / len(row["resps"]) for row in chosen) / len(chosen)
            found = {document: (value - chance) / (1 - chance) for document, value in found.items()}
        if found:
            documents[part] = found
    if not documents:
        raise InputError(f"{task.harness} gave no {task.metric} ({task.filter}); was it renamed in lm-eval {version}?")
    return TaskScores(
        name=task.name, model=mark, documents=documents, by_part=task.by_part, harness_version=version, cut=cut
    )


def _write(place: Path, scores: TaskScores) -> None:
    draft = place.with_suffix(".partial")
    draft.write_text(json.dumps(dataclasses.asdict(scores)))
    draft.replace(place)


def read_scores(place: Path) -> TaskScores:
    """Scores kept by `run_retention`."""
    return TaskScores(**json.loads(place.read_text()))


def retained(base: Sequence[TaskScores], tuned: Sequence[TaskScores]) -> list[Retained]:
    """Task by task, and the mean over tasks of each whole suite ("lb_v1_avg", ...) that both models have.

    Raises InputError when the two were scored on different documents.
    """
    before, after = ({scores.name: scores for scores in group} for group in (base, tuned))
    common = [name for name in before if name in after]
    rows = [_retained(name, [before[name]], [after[name]]) for name in common]
    for suite, tasks in SUITES.items():
        names = [task.name for task in tasks]
        if suite != "ruler" and set(names) <= set(common):
            rows.append(_retained(f"{suite}_avg", [before[name] for name in names], [after[name] for name in names]))
    return rows


def _score(values: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> Estimate:
    """Scores are at most 1 and, where they are not normalised, at least 0."""
    normalised = any(value < 0 for entry in values.values() for value in entry)
    if normalised:
        return combine(values, weights, highest=1)
    return combine(values, weights, beside=beside_scores, lowest=0, highest=1)


def _retained(name: str, base: Sequence[TaskScores], tuned: Sequence[TaskScores]) -> Retained:
    values: list[dict[str, list[float]]] = [{}, {}, {}]
    weights: dict[str, float] = {}
    for first, second in zip(base, tuned, strict=True):
        for part, share in first.weights().items():
            before, after = first.documents[part], second.documents.get(part, {})
            if set(before) != set(after) or first.harness_version != second.harness_version:
                raise InputError(
                    f"{first.name}, {part}: base and tuned were scored on different documents or by different "
                    "versions of lm-eval; run both anew"
                )
            place = f"{first.name}/{part}"
            weights[place] = share / len(base)
            values[0][place] = list(before.values())
            values[1][place] = [after[document] for document in before]
            values[2][place] = [after[document] - before[document] for document in before]
    estimates = [_score(values[0], weights), _score(values[1], weights), combine(values[2], weights)]
    cut = sum(scores.cut for scores in (*base, *tuned))
    return Retained(name=name, base=estimates[0], tuned=estimates[1], difference=estimates[2], cut=cut)

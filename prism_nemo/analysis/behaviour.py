"""Pass rate, response length and confidence of models, from the samples in a generation store (paper, table 15).

Confidence is the mean negative log-probability of the sampled tokens, nats: not the entropy of the predictions. The
paper does not say what it averages over; here each sample counts once, and each figure's interval resamples questions.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prism_nemo.artifacts import fingerprint
from prism_nemo.errors import InputError
from prism_nemo.evaluation.benchmark import Benchmark
from prism_nemo.evaluation.identity import model_facts
from prism_nemo.evaluation.protocol import read_protocol
from prism_nemo.evaluation.sample import Sample
from prism_nemo.evaluation.scoring import Judged, judge, samples_of
from prism_nemo.evaluation.store import GenerationStore

RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with its 95 % interval over questions (percentiles of the bootstrap)."""

    value: float | None
    """None when there is nothing to average, such as the confidence of right answers of a model that has none."""
    low: float | None
    """None where all that is averaged comes from one question."""
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One model under one protocol on the questions of one benchmark."""

    store: str
    model: str
    """Fingerprint."""
    name: str
    benchmark: str
    protocol: str
    """Fingerprint."""
    questions: int
    samples: int
    pass_rate: Interval
    """Fraction of samples."""
    median_length: Interval
    """Tokens."""
    mean_length: Interval
    truncated: float
    """Fraction of samples that used up their tokens: their length is a lower bound."""
    nll: Interval
    """Mean negative log-probability of the sampled tokens, nats."""
    nll_correct: Interval
    nll_incorrect: Interval
    nll_unknown: int
    """Samples without a finite figure: the backend gave no probabilities, or a token had probability 0 (the store
    keeps both as null). They are no part of the three figures above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviourReport:
    """All models in the order of the stores."""

    rows: Sequence[Behaviour]
    notes: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def measure_behaviour(
    stores: Sequence[Path],
    benchmarks: Sequence[Benchmark],
    *,
    models: Mapping[str, Path] | None = None,
    k: int | None = None,
    workers: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BehaviourReport:
    """Behaviour of every model and protocol that has samples of the benchmarks in one of the stores.

    `models`: name -> Hugging Face directory; only these, in this order, by these names. Without it every model of the
    stores. `k`: samples per question to look at; default each benchmark's own.
    Raises InputError when none of the stores has a sample of what is asked.
    """
    rows = []
    for path in stores:
        with _opened(path) as store:
            protocols, names = store.described("protocols"), _names(store, models)
            for benchmark in benchmarks:
                groups = _groups(store, benchmark, k)
                for name, model, protocol, samples in _asked_for(names, groups):
                    opened = read_protocol(protocols[protocol]).prompting.opens_thought
                    judged = judge(benchmark, samples, workers=workers, opened=opened, progress=progress)
                    where = {"store": str(path), "model": model, "name": name}
                    rows.append(behave(judged, benchmark=benchmark.name, protocol=protocol, seed=seed, **where))
    _refuse_absent(rows, stores, benchmarks, models)
    return BehaviourReport(
        rows=rows, notes=_notes(rows, {item.name: (len(item.problems), k or item.samples) for item in benchmarks})
    )


def _opened(path: Path) -> GenerationStore:
    if not Path(path).is_dir():
        raise InputError(f"{path} is not there; give the folder of a generation store")
    return GenerationStore(path)


def samples_mark(
    stores: Sequence[Path], benchmarks: Sequence[Benchmark], models: Mapping[str, Path], k: int | None = None
) -> str:
    """Fingerprint of which samples `measure_behaviour` would look at.

    Raises InputError for a store or a model that is not there.
    """
    found = []
    for path in stores:
        with _opened(path) as store:
            marks = set(_names(store, models).values())
            for benchmark in benchmarks:
                keys = samples_of(benchmark, store.keys(task=benchmark.task), k or benchmark.samples)
                found.append(sorted(key.digest for key in keys if key.model in marks))
    return fingerprint(found)


def _names(store: GenerationStore, models: Mapping[str, Path] | None) -> dict[str, str]:
    """Name -> fingerprint."""
    known = store.described("models")
    if models is None:
        short = {mark: str(facts.get("name", mark[:12])) for mark, facts in known.items()}
        twice = {name for name in short.values() if list(short.values()).count(name) > 1}
        return {f"{name} {mark[:8]}" if name in twice else name: mark for mark, name in short.items()}
    return {name: str(model_facts(Path(folder), known)["fingerprint"]) for name, folder in models.items()}


Groups = Mapping[tuple[str, str, int], list[Sample]]


def _groups(store: GenerationStore, benchmark: Benchmark, k: int | None) -> Groups:
    found: dict[tuple[str, str, int], list[Sample]] = {}
    for sample in samples_of(benchmark, store.samples(task=benchmark.task), k or benchmark.samples):
        found.setdefault((sample.model, sample.protocol, sample.seed), []).append(sample)
    return dict(sorted(found.items()))


def _asked_for(names: Mapping[str, str], groups: Groups) -> Iterator[tuple[str, str, str, list[Sample]]]:
    for name, mark in names.items():
        for (model, protocol, _), samples in groups.items():
            if model == mark:
                yield name, model, protocol, samples


def _refuse_absent(
    rows: Sequence[Behaviour],
    stores: Sequence[Path],
    benchmarks: Sequence[Benchmark],
    models: Mapping[str, Path] | None,
) -> None:
    absent = [name for name in models or () if name not in {row.name for row in rows}]
    if rows and not absent:
        return
    where, tasks = ", ".join(map(str, stores)), ", ".join(benchmark.task for benchmark in benchmarks)
    of = f" of {', '.join(absent)}" if absent else ""
    raise InputError(f"{where}: no samples{of} for {tasks}; sample them first with `prism eval run`")


def behave(
    judged: Sequence[Judged],
    *,
    store: str = "",
    model: str = "",
    name: str = "",
    benchmark: str = "",
    protocol: str = "",
    seed: int = 0,
) -> Behaviour:
    """Figures of one model's judged samples. Raises ValueError when there are none."""
    if not judged:
        raise ValueError("no samples: nothing to measure")
    order = {question: number for number, question in enumerate(dict.fromkeys(item.sample.question for item in judged))}
    question = np.array([order[item.sample.question] for item in judged])
    right = np.array([item.verdict.correct for item in judged])
    tokens = np.array([item.sample.tokens for item in judged], dtype=float)
    nll = np.array([item.sample.nll for item in judged])
    known = np.isfinite(nll)
    draws = np.random.default_rng(seed).integers(0, len(order), (RESAMPLES, len(order)))

    def interval(values: np.ndarray, keep: np.ndarray, *, median: bool = False) -> Interval:
        return _interval(values[keep], question[keep], draws, median)

    everything = np.ones(len(judged), bool)
    return Behaviour(
        store=store,
        model=model,
        name=name,
        benchmark=benchmark,
        protocol=protocol,
        questions=len(order),
        samples=len(judged),
        pass_rate=interval(right.astype(float), everything),
        median_length=interval(tokens, everything, median=True),
        mean_length=interval(tokens, everything),
        truncated=float(np.mean([item.sample.finish == "length" for item in judged])),
        nll=interval(nll, known),
        nll_correct=interval(nll, known & right),
        nll_incorrect=interval(nll, known & ~right),
        nll_unknown=int((~known).sum()),
    )


def _interval(values: np.ndarray, question: np.ndarray, draws: np.ndarray, median: bool) -> Interval:
    """Resamples whole questions, with all of their samples; draws in which nothing is left are passed over."""
    if not values.size:
        return Interval(value=None, low=None, high=None)
    value = float(np.median(values) if median else values.mean())
    if np.ptp(question) == 0:
        return Interval(value=value, low=None, high=None)  # one question has no interval
    resampled = _medians(values, question, draws) if median else _means(values, question, draws)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(value=value, low=float(low), high=float(high))


def _means(values: np.ndarray, question: np.ndarray, draws: np.ndarray) -> np.ndarray:
    sums = np.bincount(question, values, draws.shape[1])[draws].sum(axis=1)
    counts = np.bincount(question, minlength=draws.shape[1])[draws].sum(axis=1)
    return np.asarray(sums[counts > 0] / counts[counts > 0])


def _medians(values: np.ndarray, question: np.ndarray, draws: np.ndarray) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    ordered, owner = values[order], question[order]
    found = []
    for draw in draws:  # every sample counts as often as its question was drawn
        heaped = np.cumsum(np.bincount(draw, minlength=draws.shape[1])[owner])
        if heaped[-1]:
            middle = np.searchsorted(heaped, [(heaped[-1] - 1) // 2, heaped[-1] // 2], side="right")
            found.append(ordered[middle].mean())
    return np.array(found)


def _notes(rows: Sequence[Behaviour], asked: Mapping[str, tuple[int, int]]) -> list[str]:
    """`asked`: benchmark -> its questions and the samples of each."""
    notes = []
    for row in rows:
        questions, k = asked[row.benchmark]
        if row.samples < questions * k:
            notes.append(
                f"{row.name} on {row.benchmark}: {row.samples} of {questions} x {k} samples are in the store, "
                f"of {row.questions} questions"
            )
        if row.truncated > 0.05:
            notes.append(
                f"{row.name} on {row.benchmark}: {100 * row.truncated:.0f} % of the answers used up their tokens"
            )
        if row.nll_unknown:
            notes.append(f"{row.name} on {row.benchmark}: {row.nll_unknown} samples have no finite log-probability")
    return notes

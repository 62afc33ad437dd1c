"""Benchmarks ready to be asked: a shipped definition with its rows, or a file of problems."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.evaluation.definitions import Definition, definition
from prism_nemo.evaluation.protocol import Sampling
from prism_nemo.evaluation.readers import READERS, skip
from prism_nemo.evaluation.rows import read_rows
from prism_nemo.verifiers import Problem, key_fault, load_problems
from prism_nemo.verifiers.problem import DOMAINS


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Questions ready to be asked and judged."""

    name: str
    version: str
    domain: str
    problems: Mapping[str, Problem]
    """By id, in order."""
    messages: Mapping[str, str]
    """Question id -> user's message."""
    samples: int
    """k unless another one is asked for."""
    sampling: Sampling
    held_out: bool = False

    @property
    def task(self) -> str:
        """Its name in the store."""
        return f"{self.name}@{self.version}"


def load_benchmark(
    name: str, *, data: Path | None = None, samples: int | None = None, preset: str = "prism", **options: Any
) -> Benchmark:
    """A shipped benchmark with its rows from a local file or folder (`data`: JSONL, JSON, CSV, Parquet) or the hub.

    `options` are switches of the reader (codeforces: `editorial=True` puts the editorial into the prompt, a leak).
    Raises InputError for an unknown name or option, missing columns, duplicate ids, another number of questions than
    the benchmark has, and keys that the scorer cannot read.
    """
    found = definition(name)
    unknown = sorted(set(options) - set(found.options))
    if unknown:
        raise InputError(f"{name} has no option {', '.join(unknown)}; it knows {', '.join(found.options) or 'none'}")
    switches = {**found.options, **options}
    read = READERS[found.reader]
    placed = {where: read(found, row, where, switches) for where, row in _rows(found, data) if not skip(found, row)}
    _check(placed)
    if len(placed) != found.questions:
        raise InputError(f"{data or found.hub.id}: {len(placed)} questions, {name} has {found.questions}")
    problems = {problem.id: problem for problem in placed.values()}
    changed = [f"{key}={value}" for key, value in sorted(switches.items()) if value != found.options[key]]
    quick = preset == "quick"
    sampling = (
        dataclasses.replace(found.sampling, max_new_tokens=found.quick_max_new_tokens) if quick else found.sampling
    )
    return Benchmark(
        name=name,
        version="+".join([str(found.version), *changed]),
        domain=found.domain,
        problems=problems,
        messages={problem.id: problem.prompt for problem in problems.values()},
        samples=samples or (found.quick_samples if quick else found.samples),
        sampling=sampling,
        held_out=found.held_out,
    )


def file_benchmarks(
    path: Path, *, per_domain: int = 0, samples: int = 8, sampling: Sampling | None = None
) -> list[Benchmark]:
    """A JSONL of Problems (see `prism_nemo.verifiers.problem`) as one benchmark per domain, NAME_DOMAIN.

    `per_domain` > 0 keeps that many of each, spread evenly over the file. The prompt is asked as it is, and it is what
    tells samples of other content apart: the version is `file`. Raises InputError for a bad file.
    """
    problems = load_problems(path)
    found = []
    for domain in DOMAINS:
        chosen = [problem for problem in problems if problem.domain == domain]
        chosen = spread(chosen, per_domain) if per_domain else chosen
        if chosen:
            found.append(_file_benchmark(f"{path.stem}_{domain}", domain, chosen, samples, sampling or Sampling()))
    if not found:
        raise InputError(f"{path} has no problems")
    return found


def spread[Item](items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of them, at even distances."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def fewer(benchmark: Benchmark, questions: int) -> Benchmark:
    """A benchmark with at most so many of its questions; their samples in the store are the same."""
    kept = spread(list(benchmark.problems), questions)
    return dataclasses.replace(
        benchmark,
        problems={name: benchmark.problems[name] for name in kept},
        messages={name: benchmark.messages[name] for name in kept},
    )


def _file_benchmark(name: str, domain: str, problems: Sequence[Problem], samples: int, sampling: Sampling) -> Benchmark:
    return Benchmark(
        name=name,
        version="file",
        domain=domain,
        problems={problem.id: problem for problem in problems},
        messages={problem.id: problem.prompt for problem in problems},
        samples=samples,
        sampling=sampling,
    )


def _rows(found: Definition, data: Path | None) -> list[tuple[str, dict[str, Any]]]:
    if data is not None:
        return read_rows(data)
    from datasets import load_dataset

    try:
        table = load_dataset(found.hub.id, found.hub.config, split=found.hub.split)
    except Exception as error:  # the hub's client raises many kinds: no network, no access, gone
        raise InputError(
            f"{found.name}: {found.hub.id} cannot be had from the hub ({str(error).splitlines()[0]:.120}); "
            f"give a local copy with --data {found.name}=FILE"
        ) from error
    return [(f"{found.hub.id}[{i}]", dict(row)) for i, row in enumerate(table)]


def _check(placed: Mapping[str, Problem]) -> None:
    """Problems by their place in the data: every id once, every key one that the scorer can read."""
    seen: dict[str, str] = {}
    for where, problem in placed.items():
        if problem.id in seen:
            raise InputError(f"{where}: the id {problem.id!r} was already used in {seen[problem.id]}")
        seen[problem.id] = where
        if fault := key_fault(problem.domain, problem.answer):
            raise InputError(f"{where}: question {problem.id!r}: {fault}")

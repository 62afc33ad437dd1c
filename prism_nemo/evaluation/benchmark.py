"""Benchmarks as data: `benchmarks/NAME.yaml` says where the rows are, what the model is asked, and the protocol.

The same files tell decontamination which texts must not be trained on (`question_texts`).
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
import xxhash
import yaml

from prism_nemo.errors import InputError
from prism_nemo.evaluation.protocol import Sampling
from prism_nemo.evaluation.rows import read_rows
from prism_nemo.verifiers import Problem, key_faults, load_problems

FOLDER = Path(__file__).parent / "benchmarks"
DOMAINS = ("math", "code", "science")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A data set for `datasets.load_dataset`."""

    id: str
    config: str | None = None
    split: str = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One `benchmarks/NAME.yaml`."""

    name: str
    title: str
    version: int
    """Moves when the questions asked would be others; samples of another version are not found."""
    domain: Literal["math", "code", "science"]
    questions: int
    """How many there must be; other data under this name is refused."""
    hub: Hub
    reader: Literal["answer", "options", "livecodebench", "codeforces"]
    """How a row becomes a problem (`readers`)."""
    columns: dict[str, str]
    """Column of each thing the reader needs: id, question, answer, ..."""
    prompt: str
    """Jinja text of the user's message; `question` and what else the reader gives."""
    samples: int
    """k of the paper's protocol."""
    quick_samples: int
    """k of the cheap preset."""
    sampling: Sampling
    """The paper's (section 4)."""
    quick_max_new_tokens: int
    source: str
    """Where protocol and prompt come from."""
    licence: str = "unknown"
    held_out: bool = False
    """Not one of the paper's six: no part of an average."""
    options: dict[str, Any] = field(default_factory=dict)
    """Switches of the reader."""


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


@cache
def definitions() -> dict[str, Definition]:
    """Every shipped benchmark by name."""
    found = [_definition(path) for path in sorted(FOLDER.glob("*.yaml"))]
    return {definition.name: definition for definition in found}


def definition(name: str) -> Definition:
    """A shipped benchmark. Raises InputError with the nearest name for an unknown one."""
    if name in definitions():
        return definitions()[name]
    near = difflib.get_close_matches(name, definitions(), 1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(definitions())}"
    raise InputError(f"unknown benchmark {name!r}; {hint}")


def _definition(path: Path) -> Definition:
    values = yaml.safe_load(path.read_text())
    hub, sampling = Hub(**values.pop("hub")), Sampling(**values.pop("sampling"))
    return Definition(hub=hub, sampling=sampling, **values)


def load_benchmark(
    name: str, *, data: Path | None = None, samples: int | None = None, preset: str = "prism", **options: Any
) -> Benchmark:
    """A shipped benchmark with its rows from a local file or folder (`data`: JSONL, JSON, CSV, Parquet) or the hub.

    `options` are switches of the reader (codeforces: `editorial=True` puts the editorial into the prompt, a leak).
    Raises InputError for an unknown name or option, missing columns, duplicate ids, another number of questions than
    the benchmark has, and keys that the scorer cannot read.
    """
    from prism_nemo.evaluation.readers import READERS

    found = definition(name)
    unknown = sorted(set(options) - set(found.options))
    if unknown:
        raise InputError(f"{name} has no option {', '.join(unknown)}; it knows {', '.join(found.options) or 'none'}")
    switches = {**found.options, **options}
    asked = [READERS[found.reader](found, row, where, switches) for where, row in _rows(found, data)]
    problems = _unique(name, [problem for problem, _ in asked])
    if len(problems) != found.questions:
        raise InputError(f"{data or found.hub.id}: {len(problems)} questions, {name} has {found.questions}")
    _check_keys(name, list(problems.values()))
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


def question_texts(name: str, data: Path | None = None) -> dict[str, str]:
    """Question id -> the bare question, without instructions: what training text must not contain."""
    from prism_nemo.evaluation.readers import READERS

    found = definition(name)
    asked = [READERS[found.reader](found, row, where, found.options) for where, row in _rows(found, data)]
    return {problem.id: question for problem, question in asked}


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


def render(template: str, where: str, **values: Any) -> str:
    """A prompt from its template. Raises InputError when the template names what the row does not have."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=False)
    try:
        return environment.from_string(template).render(**values)
    except jinja2.TemplateError as error:
        raise InputError(f"{where}: the prompt cannot be made: {error}") from error


def _rows(found: Definition, data: Path | None) -> list[tuple[str, dict[str, Any]]]:
    from prism_nemo.evaluation.readers import skip

    return [(where, row) for where, row in _all_rows(found, data) if not skip(found, row)]


def _all_rows(found: Definition, data: Path | None) -> list[tuple[str, dict[str, Any]]]:
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


def _unique(name: str, problems: Sequence[Problem]) -> dict[str, Problem]:
    unique: dict[str, Problem] = {}
    for problem in problems:
        if problem.id in unique:
            raise InputError(f"{name}: two questions have the id {problem.id!r}; ids must be unique")
        unique[problem.id] = problem
    return unique


def _check_keys(name: str, problems: Sequence[Problem]) -> None:
    for problem, fault in zip(problems, key_faults(problems), strict=True):
        if fault:
            raise InputError(f"{name}, question {problem.id!r}: {fault}")


def short_id(text: str) -> str:
    """An id for a question that has none: 12 hex digits of its text."""
    return xxhash.xxh3_64_hexdigest(text.encode())[:12]

"""Benchmarks as data: `benchmarks/NAME.yaml` says where the rows are, what the model is asked, and the protocol."""

import difflib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from prism_nemo.errors import InputError
from prism_nemo.evaluation.protocol import Sampling

FOLDER = Path(__file__).parent / "benchmarks"


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

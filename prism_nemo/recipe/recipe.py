"""A recipe: everything that decides a run, as one frozen value."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import yaml

from prism_nemo.artifacts import fingerprint
from prism_nemo.recipe.parts import (
    RL,
    Analyze,
    Data,
    Evaluate,
    LongContext,
    Merge,
    Model,
    Parallel,
    Precision,
    Training,
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Recipe:
    """One model's way from base to report. Made by `recipe()` in a plain Python file; see `recipes/`."""

    name: str
    """Of the run; also its default directory below `runs/`."""
    model: Model
    data: Data
    pretrain: Training | None = None
    """Training of a pico model from random weights on general text and code; only in a rehearsal."""
    midtrain: Training
    merge: Merge | None = None
    long_context: LongContext | None = None
    """Training at 128k after the merge (paper, section 8.1)."""
    rl: RL
    evaluate: Evaluate
    analyze: Analyze
    parallel: Parallel
    precision: Precision = "bf16"
    seed: int = 42
    """Of initialisation and of the trainer."""

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed; a dict changes fields of that part: `with_(midtrain={"tokens": 10**9})`."""
        resolved = {}
        for name, value in changes.items():
            part = getattr(self, name)
            inside = isinstance(value, dict) and dataclasses.is_dataclass(part)
            resolved[name] = dataclasses.replace(part, **value) if inside else value
        return dataclasses.replace(self, **resolved)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: tuples become lists."""
        return _plain(dataclasses.asdict(self))

    def to_yaml(self) -> str:
        """The resolved recipe as text, in the order of the fields."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)

    def fingerprint(self) -> str:
        return fingerprint(self.to_dict())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value

"""From what a user writes (a recipe's rl section, `key=value`) to the settings of a job and a cluster, and back."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.recipe import RL, load_recipe, override_part
from prism_nemo.recipe.presets import with_preset
from prism_nemo.rl.nemo_rl.cluster import Cluster

CIRCUMSTANCE = ("engine", "preset", "cluster", "prompts")
"""Fields of an rl section that are no setting of its training: where it runs, where the others came from, its input."""


def section_from(values: Sequence[str], *, preset: str, recipe: str, prompts: Path) -> RL:
    """An rl section: a recipe's where one is named, the preset where one is named, then `key=value` texts.

    Raises InputError.
    """
    section = load_recipe(recipe).rl if recipe else RL()
    section = with_preset(section, preset) if preset else section
    for key in CIRCUMSTANCE:
        if any(value.partition("=")[0].partition(".")[0] == key for value in values):
            raise InputError(f"{key} is no setting of the training; give it as --{key}")
    return dataclasses.replace(override_part(section, values, "rl"), prompts=str(prompts))


def training(section: RL) -> dict[str, Any]:
    """What decides the training, as plain values: the parameters of its artifact."""
    return {name: value for name, value in dataclasses.asdict(section).items() if name not in CIRCUMSTANCE}


def assignments(section: RL) -> list[str]:
    """`training` as the `key=value` texts that `section_from` reads, where it departs from the defaults."""
    settings = dict(_leaves(section))
    return [f"{key}={_text(value)}" for key, value in settings.items() if value != dict(_leaves(RL()))[key]]


def _leaves(section: RL) -> Iterator[tuple[str, Any]]:
    for name, value in training(section).items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", entry) for inner, entry in value.items())
        else:
            yield name, value


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def cluster_from(values: Sequence[str]) -> Cluster:
    """A cluster from `key=value` texts. Raises InputError for an unknown key or a wrong value."""
    known = {entry.name: entry.type for entry in dataclasses.fields(Cluster)}
    settings: dict[str, Any] = {}
    for key, value in map(_pair, values):
        if key not in known:
            raise InputError(f"unknown key cluster.{key}; the keys are {', '.join(known)}")
        settings[key] = tuple(value.split(",")) if key == "mounts" else value
    return Cluster(**settings)


def _pair(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise InputError(f"{text!r}: expected key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value

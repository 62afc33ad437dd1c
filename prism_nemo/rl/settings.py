"""From what a user writes (a recipe's rl section, `key=value`) to a job and a cluster."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.recipe.presets import PRESETS
from prism_nemo.rl.job import RLJob
from prism_nemo.rl.nemo_rl.cluster import Cluster


def job_from(
    values: Sequence[str], *, preset: str = "paper", recipe: str = "", model: Path, prompts: Path, out: Path
) -> RLJob:
    """A job from a preset, or a recipe's rl section, and `key=value` texts, which win. Raises InputError."""
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    settings = dict(PRESETS[preset])
    if recipe:
        from prism_nemo.recipe.load import load_recipe

        settings |= job_values(load_recipe(recipe).rl)
    for key, value in map(_pair, values):
        outer, _, inner = key.partition(".")
        if inner:
            part = settings.get(outer) or {}
            settings[outer] = {**(part if isinstance(part, dict) else {}), inner: value}
        else:
            settings[key] = value
    return RLJob.from_dict({**settings, "model": str(model), "prompts": str(prompts), "out": str(out)})


def job_values(section: Any) -> dict[str, Any]:
    """What a recipe's rl section says about a job: the fields they share, by name."""
    known = {entry.name for entry in dataclasses.fields(RLJob)} - {"prompts"}
    return {name: value for name, value in dataclasses.asdict(section).items() if name in known}


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

"""Changing how a model numbers its positions: for training at a length it was not made for."""

from collections.abc import Mapping
from typing import Any

from prism_nemo.errors import InputError

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
"""The published values of the LLaMA-3.1 models."""


def rope_changes(
    config: Mapping[str, Any], *, length: int, base: float | None, scaling: str | None, factor: float
) -> dict[str, Any]:
    """The keys of `config.json` that change when a model is to read `length` tokens.

    `base`: new RoPE base. `scaling`: `llama3` or `yarn` with this `factor` over the length the model has now. None
    leaves them. Raises InputError for a model without rotary positions (Nemotron-H, Granite-4-H) when either is given.
    """
    now = int(config.get("max_position_embeddings") or length)
    changes: dict[str, Any] = {"max_position_embeddings": length} if length > now else {}
    if base is None and scaling is None:
        return changes
    if config.get("position_embedding_type") == "nope" or config.get("model_type") == "nemotron_h":
        raise InputError("long_context.rope_base, rope_scaling: this model has no rotary positions; leave them out")
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if scaling is not None:
        original = int(rope.get("original_max_position_embeddings") or now)
        rope = {"rope_type": scaling, "factor": factor, "original_max_position_embeddings": original}
        rope |= LLAMA3 if scaling == "llama3" else {}
    theta = base if base is not None else _theta(config)
    if "rope_parameters" in config:
        return changes | {"rope_parameters": rope | {"rope_theta": theta}}
    return changes | {"rope_theta": theta} | ({"rope_scaling": rope} if rope else {})


def _theta(config: Mapping[str, Any]) -> float:
    """transformers 5 writes it into `rope_parameters`; 10,000 is the default of every class here."""
    return float(config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta") or 10_000.0)

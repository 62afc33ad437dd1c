"""Presets of reinforcement learning: what each changes of the paper's Table 21, which is the default of every field."""

from dataclasses import fields, replace
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.recipe.parts import RL, Rewards

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # DAPO, arXiv 2503.14476, and NeMo-RL's dapo-qwen2.5-7b.v2
    "dapo": {
        "kl": 0.0,
        "clip_high": 0.28,
        "learning_rate": 1e-6,
        "schedule": "constant",
        "warmup_steps": 10,
        "weight_decay": 0.1,
        "prompts_per_step": 512,
        "max_tokens": 18_432,
        "max_new_tokens": 16_384,
        "dynamic_sampling": True,
        "rewards": {"format_gate": False, "overlong_buffer": 2048, "overlong_penalty": 1.0},
    },
    # NeMo-RL's grpo_nanov3
    "nemotron_nano": {
        "kl": 0.0,
        "clip_high": 0.28,
        "learning_rate": 3e-6,
        "schedule": "constant",
        "prompts_per_step": 128,
        "max_tokens": 49_152,
        "max_new_tokens": 40_960,
        "mask_truncated": True,
    },
}
SIZES = ("prompts_per_step", "max_tokens", "max_new_tokens")
"""What a laptop keeps as it is when a preset is set."""


def with_preset(section: RL, name: str) -> RL:
    """The section with every field that any preset decides as this one has it; what is set afterwards wins.

    With the engine `trl` sizes stay. Raises InputError for an unknown preset.
    """
    if name not in PRESETS:
        raise InputError(f"rl.preset={name}: must be one of {', '.join(PRESETS)}")
    decided = {key for preset in PRESETS.values() for key in preset} - ({*SIZES} if section.engine == "trl" else set())
    defaults = {field.name: field.default for field in fields(RL)}
    values = {key: PRESETS[name].get(key, defaults[key]) for key in decided if key != "rewards"}
    return replace(section, preset=name, rewards=Rewards(**PRESETS[name].get("rewards", {})), **values)


def lacks(engine: str, *, kl: float, reference_every: int) -> list[str]:
    """What of the paper's setup a run of this engine goes without, one line each."""
    if not kl:
        return []
    if engine == "nemo_rl":
        return ["NeMo-RL has no softly updated reference policy as in the paper: it stays the starting policy"]
    if not reference_every:
        return ["the paper updates its reference policy softly, it does not say how often; rl.reference_every=0: never"]
    return []

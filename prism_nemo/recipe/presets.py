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

    With the engine `trl` sizes stay, the overlong buffer is in proportion to them, and there is no dynamic sampling.
    Raises InputError for an unknown preset.
    """
    if name not in PRESETS:
        raise InputError(f"rl.preset={name}: must be one of {', '.join(PRESETS)}")
    here = section.engine == "trl"
    decided = {key for preset in PRESETS.values() for key in preset} - ({*SIZES} if here else set()) - {"rewards"}
    defaults = {field.name: field.default for field in fields(RL)}
    wanted = {**defaults, **PRESETS[name]}
    values = {key: wanted[key] for key in decided}
    values["dynamic_sampling"] = wanted["dynamic_sampling"] and not here
    rewards = Rewards(**PRESETS[name].get("rewards", {}))
    if here:
        rewards = with_buffer(rewards, wanted["max_new_tokens"], section.max_new_tokens)
    return replace(section, preset=name, rewards=rewards, **values)


def with_buffer(rewards: Rewards, before: int, after: int) -> Rewards:
    """The overlong buffer as the same share of responses of `after` tokens as it is of `before` tokens."""
    return replace(rewards, overlong_buffer=in_proportion(rewards.overlong_buffer, before, after))


def in_proportion(value: int, before: int, after: int) -> int:
    """`value` of `before` as a part of `after`: at least 1, unless it is 0; less than the whole, as it was."""
    return min(value, max(1, value * after // before))


def lacks(engine: str, *, kl: float, reference_every: int) -> list[str]:
    """What of the paper's setup a run of this engine goes without, one line each."""
    if not kl:
        return []
    if engine == "nemo_rl":
        return ["NeMo-RL has no softly updated reference policy as in the paper: it stays the starting policy"]
    if not reference_every:
        return ["the paper updates its reference policy softly, it does not say how often; rl.reference_every=0: never"]
    return []

"""How far a run of NeMo-RL is, from what it and our environment leave in its folder."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class NemoRLProgress:
    """A run that `prepare` wrote."""

    saved: int
    """Step of the last checkpoint: from there it goes on."""
    steps: int
    seconds_left: float
    """At the speed between the last two checkpoints; 0 when there are none."""
    message: str


def nemo_rl_progress(folder: Path) -> NemoRLProgress | None:
    """The state of the run in `folder`; None when none was written there."""
    try:
        steps = int(yaml.safe_load((folder / "grpo.yaml").read_text())["grpo"]["max_num_steps"])
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError):
        return None
    found = {int(path.name.removeprefix("step_")): path for path in (folder / "checkpoints").glob("step_*")}
    *earlier, last = [0, *sorted(found)]
    left = 0.0
    if earlier and earlier[-1]:
        spent = found[last].stat().st_mtime - found[earlier[-1]].stat().st_mtime
        left = max(spent, 0.0) * (steps - last) / (last - earlier[-1])
    reward = _last_reward(folder / "rewards.jsonl")
    message = f"step {last} saved" + ("" if reward is None else f", reward {reward:.3f} in the last batch")
    return NemoRLProgress(saved=last, steps=steps, seconds_left=left, message=message)


def _last_reward(log: Path) -> float | None:
    if not log.is_file():
        return None
    whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]  # one may be torn
    return float(json.loads(whole[-1])["reward"]) if whole else None

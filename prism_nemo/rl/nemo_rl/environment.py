"""The reward inside NeMo-RL: one environment for math, code and science, judging as a run on this machine is judged.

The interface is nemo_rl/environments/interfaces.py of v0.7.0. Nothing of NeMo-RL or Ray is imported here.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prism_nemo.errors import PrismError
from prism_nemo.recipe.parts import Rewards
from prism_nemo.rl.judge import Judged, judge
from prism_nemo.verifiers import problem_from_row


class Returned(NamedTuple):
    """NeMo-RL's EnvironmentReturn: it takes the six values in this order."""

    observations: list[dict[str, str]]
    metadata: list[Any]
    next_stop_strings: list[None]
    rewards: torch.Tensor
    """Float32, one for each rollout."""
    terminateds: torch.Tensor
    answers: list[str | None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The section `env.prism` of the YAML; NeMo-RL hands it on unread."""

    tokenizer: str
    """Hugging Face directory."""
    domains: tuple[str, ...]
    max_new_tokens: int
    think_opened: bool
    workers: int
    """Completions judged at a time."""
    rewards: Rewards
    """The overlong penalty is logged here and added by NeMo-RL: its dynamic sampling looks at rewards without it."""
    log: str
    """JSONL that gets the means of every batch: reward with all its parts, correctness per domain, outcomes."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        rules, domains = Rewards(**values["rewards"]), tuple(values["domains"])
        return cls(**{**values, "rewards": rules, "domains": domains})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the YAML."""
        return {**dataclasses.asdict(self), "domains": list(self.domains)}

    def require_sandbox(self) -> None:
        """Raises InputError, with what to do, when there is code to run and nothing to run it in."""
        if "code" in self.domains:
            from prism_nemo import sandbox

            sandbox.require()


class Environment:
    """Judges the first and only turn of every rollout."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """`values`: the section `env.prism`. Raises InputError when code cannot be run here."""
        from transformers import AutoTokenizer

        self.settings = Settings.from_dict(values)
        self.settings.require_sandbox()
        self.tokenizer = AutoTokenizer.from_pretrained(self.settings.tokenizer, trust_remote_code=False)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def step(self, message_log_batch: Sequence[Sequence[Mapping[str, Any]]], metadata: Sequence[Any]) -> Returned:
        """Rewards of rollouts. `metadata`: each prompt's `{"problem": line of JSON}`, as `dataset` makes it.

        Raises PrismError when the trainer sent no token ids (it was started without `train`).
        """
        completions = [_token_ids(log[-1]) for log in message_log_batch]
        problems = [problem_from_row(json.loads(entry["problem"])) for entry in metadata]
        judged = judge(
            problems,
            completions,
            self.tokenizer,
            self.settings.rewards,
            max_new_tokens=self.settings.max_new_tokens,
            opened=self.settings.think_opened,
            workers=self.settings.workers,
        )
        self._log(judged)
        count = len(problems)
        return Returned(
            observations=[{"role": "environment", "content": ""}] * count,
            metadata=[None] * count,
            next_stop_strings=[None] * count,
            rewards=torch.tensor([entry.total - entry.overlong for entry in judged.rewards], dtype=torch.float32),
            terminateds=torch.ones(count, dtype=torch.bool),
            answers=[verdict.extracted for verdict in judged.verdicts],
        )

    def _log(self, judged: Judged) -> None:
        path = Path(self.settings.log)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.write(json.dumps({"rollouts": len(judged.problems), **judged.means()}) + "\n")

    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
        """Part of NeMo-RL's interface; the figures are in the log."""
        return batch, {}

    def shutdown(self) -> None:
        """End the processes that compare mathematics."""
        from prism_nemo.verifiers.math import close

        close()


def _token_ids(message: Mapping[str, Any]) -> list[int]:
    if "token_ids" not in message:
        raise PrismError(
            "NeMo-RL sent no token ids of a rollout; start it with `python -m prism_nemo.rl.nemo_rl.train`"
        )
    ids: list[int] = message["token_ids"].tolist()
    return ids

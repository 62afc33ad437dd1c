"""From sampled tokens to rewards: the one path of both engines, and the line both log for a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prism_nemo.recipe.parts import Rewards
from prism_nemo.rl.rewards import Reward, reward
from prism_nemo.verifiers import Problem, Verdict, verify_many

PARTS = ("correctness", "stop", "repetition", "overlong")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Completions and what they earned, in the order given."""

    problems: Sequence[Problem]
    verdicts: Sequence[Verdict]
    rewards: Sequence[Reward]
    lengths: Sequence[int]
    """Tokens, the end-of-text token included."""
    stopped: Sequence[bool]
    """Ended by itself, not at the limit."""

    @property
    def totals(self) -> list[float]:
        return [entry.total for entry in self.rewards]

    def means(self) -> dict[str, Any]:
        """Means over the completions: reward and its parts, correctness per domain; outcomes are counted."""
        correct: dict[str, list[bool]] = {}
        for problem, verdict in zip(self.problems, self.verdicts, strict=True):
            correct.setdefault(problem.domain, []).append(verdict.correct)
        outcomes = [verdict.outcome for verdict in self.verdicts]
        return {
            "reward": mean(self.totals),
            "parts": {name: mean([getattr(entry, name) for entry in self.rewards]) for name in PARTS},
            "correct": {domain: mean(values) for domain, values in sorted(correct.items())},
            "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
            "think_format": mean([verdict.think_format for verdict in self.verdicts]),
            "length": mean(self.lengths),
            "stopped": mean(self.stopped),
        }


def judge(
    problems: Sequence[Problem],
    completions: Sequence[Sequence[int]],
    tokenizer: Any,
    rules: Rewards,
    *,
    max_new_tokens: int,
    opened: bool,
    workers: int,
) -> Judged:
    """Judge completions given as token ids, `workers` at a time.

    Texts are decoded here, special tokens kept: an engine's own text lacks them, and the think tags may be such.
    `opened`: the prompts end with `<think>`. Raises InputError when code is to be run and no sandbox can be had.
    """
    stop_ids = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    bodies = [[token for token in ids if token not in stop_ids] for ids in completions]
    stopped = [bool(ids) and ids[-1] in stop_ids for ids in completions]
    texts = tokenizer.batch_decode(bodies, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    verdicts = verify_many(problems, texts, workers=workers, opened=opened)
    rewards = [
        reward(verdict, body, stopped=ended, max_new_tokens=max_new_tokens, rules=rules)
        for verdict, body, ended in zip(verdicts, bodies, stopped, strict=True)
    ]
    lengths = [len(ids) for ids in completions]
    return Judged(problems=problems, verdicts=verdicts, rewards=rewards, lengths=lengths, stopped=stopped)


def mean(values: Sequence[float]) -> float:
    """0 of nothing."""
    return round(sum(values) / len(values), 6) if values else 0.0

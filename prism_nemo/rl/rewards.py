"""The reward of a completion, with its parts: correctness behind the format gate, and the penalties."""

from collections.abc import Sequence
from dataclasses import dataclass

from prism_nemo.recipe.parts import Rewards
from prism_nemo.verifiers import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """A reward and where it comes from; `total` is the sum of the four parts."""

    correctness: float
    stop: float
    repetition: float
    overlong: float

    @property
    def total(self) -> float:
        return self.correctness + self.stop + self.repetition + self.overlong


def reward(verdict: Verdict, tokens: Sequence[int], *, stopped: bool, max_new_tokens: int, rules: Rewards) -> Reward:
    """The reward of one completion.

    `tokens`: its ids without the end-of-text token. `stopped`: it ended by itself, not at `max_new_tokens`.
    """
    scored = verdict.correct and (verdict.think_format or not rules.format_gate)
    return Reward(
        correctness=rules.correct if scored else 0.0,
        stop=0.0 if stopped else -rules.stop_penalty,
        repetition=-rules.repetition_penalty * repeated_share(tokens, rules.repetition_ngram),
        overlong=-rules.overlong_penalty * overlong_share(len(tokens), max_new_tokens, rules.overlong_buffer),
    )


def repeated_share(tokens: Sequence[int], n: int) -> float:
    """Share of a completion's n-grams that occurred before in it, 0 to 1; 0 when it is shorter than n."""
    ngrams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def overlong_share(length: int, limit: int, buffer: int) -> float:
    """0 up to `limit - buffer` tokens, rising linearly to 1 at `limit` (DAPO, arXiv 2503.14476, Eq. 13, negated)."""
    if buffer == 0:
        return 0.0
    return min(max((length - (limit - buffer)) / buffer, 0.0), 1.0)

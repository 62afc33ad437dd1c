"""The Open LLM Leaderboards (V1, V2) and RULER as tasks of lm-evaluation-harness."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prism_nemo.errors import InputError, missing_package

RULER_LENGTHS = (8192, 16384, 32768, 65536, 131072)
RULER_SAMPLES = 100
"""Of each task and length, as in HELMET, which the paper used; the harness makes 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One column of a leaderboard."""

    name: str
    """As in paper_results.json, where it is there."""
    harness: str
    """Task or group of lm-evaluation-harness."""
    metric: str
    filter: str = "none"
    fewshot: int | None = None
    """None: as the harness's task says."""
    by_part: bool = False
    """The score is the plain mean over the group's subtasks; otherwise over all documents."""
    normalised: bool = False
    """V2: 0 is chance (1 / number of choices), 1 is all right; parts below chance are not cut off at 0 here."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


LB_V1 = (
    Task(name="arc", harness="arc_challenge", metric="acc_norm", fewshot=25),
    Task(name="hellaswag", harness="hellaswag", metric="acc_norm", fewshot=10),
    Task(name="mmlu", harness="mmlu", metric="acc", fewshot=5),
    Task(name="truthfulqa", harness="truthfulqa_mc2", metric="acc", fewshot=0),
    Task(name="winogrande", harness="winogrande", metric="acc", fewshot=5),
    Task(name="gsm8k", harness="gsm8k", metric="exact_match", filter="strict-match", fewshot=5),
)
"""Fewshot counts of the harness's group `openllm`; the paper does not name its harness (inferred)."""
LB_V2 = (
    Task(name="ifeval", harness="leaderboard_ifeval", metric="prompt_level_strict_acc"),
    Task(name="bbh", harness="leaderboard_bbh", metric="acc_norm", by_part=True, normalised=True),
    Task(name="lb2_math", harness="leaderboard_math_hard", metric="exact_match"),
    Task(name="lb2_gpqa", harness="leaderboard_gpqa", metric="acc_norm", normalised=True),
    Task(name="musr", harness="leaderboard_musr", metric="acc_norm", by_part=True, normalised=True),
    Task(name="mmlu_pro", harness="leaderboard_mmlu_pro", metric="acc", normalised=True),
)


def ruler(length: int) -> Task:
    """RULER's 13 tasks at one context length in tokens."""
    return Task(
        name=f"ruler_{length // 1024}k",
        harness="ruler",
        metric=str(length),
        by_part=True,
        metadata={"max_seq_lengths": [length]},
    )


ALIASES = {"leaderboard_v1": "lb_v1", "leaderboard_v2": "lb_v2"}
SUITES: dict[str, tuple[Task, ...]] = {
    "lb_v1": LB_V1,
    "lb_v2": LB_V2,
    "ruler": tuple(map(ruler, RULER_LENGTHS)),
}


def tasks_of(text: str) -> list[Task]:
    """Tasks of a list such as `lb_v1,ruler_8k,hellaswag`. Raises InputError for an unknown word."""
    known = {task.name: (task,) for tasks in SUITES.values() for task in tasks} | SUITES
    found: dict[str, Task] = {}
    for word in _words(text):
        if word not in known:
            raise InputError(f"unknown retention task {word!r}; known: {', '.join(known)}")
        found |= {task.name: task for task in known[word]}
    if not found:
        raise InputError(f"no retention task named; known: {', '.join(known)}")
    return list(found.values())


def _words(text: str) -> list[str]:
    return [ALIASES.get(word, word) for word in (part.strip() for part in text.split(",")) if word]


def is_retention(text: str) -> bool:
    """Whether a suite's first word is the harness's and not a reasoning benchmark."""
    words = _words(text)
    return bool(words) and words[0] in {*SUITES, *(task.name for tasks in SUITES.values() for task in tasks)}


def missing_harness() -> InputError:
    """What to say where lm-evaluation-harness is not installed."""
    return missing_package("lm_eval", "retention", "pip install 'lm-eval[ifeval,ruler]>=0.4.13'")

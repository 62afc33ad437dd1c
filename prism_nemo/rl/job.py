"""A GRPO run, for both engines, and the order in which its prompts are drawn."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.models.facts import Shape
from prism_nemo.recipe.parts import RL
from prism_nemo.recipe.reinforcement import Stretch, check_rl, curriculum
from prism_nemo.verifiers import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class RLJob:
    """A recipe's rl section, and what it is run on. Raises InputError for values that cannot be run."""

    model: str
    """Hugging Face directory of the policy to start from."""
    out: str
    """Where the trained Hugging Face directory goes."""
    rl: RL
    """With `prompts`, a JSONL of problems (`prism_nemo.verifiers.Problem`)."""
    rollouts_per_pass: int = 0
    """TRL: rollouts in one forward and backward pass; 0: all of a step (32 of a hybrid, where they divide it)."""
    verify_workers: int = 2
    """TRL: completions judged at a time."""

    def __post_init__(self) -> None:
        check_rl(self.rl)


def draw(problems: Sequence[Problem], section: RL) -> list[Problem]:
    """The prompts of the whole run in order, `prompts_per_step` for each step. Deterministic.

    A stretch of the curriculum makes passes over the prompts of its own domains, shuffled anew for each.
    Raises InputError when a domain has no prompt or a step would repeat one.
    """
    generator = random.Random(section.seed)
    order: list[Problem] = []
    for stretch in curriculum(section):
        order += _draw_stretch(problems, stretch, section, generator)
    return order


def _draw_stretch(
    problems: Sequence[Problem], stretch: Stretch, section: RL, generator: random.Random
) -> list[Problem]:
    pool = [problem for problem in problems if problem.domain in stretch.domains]
    absent = set(stretch.domains) - {problem.domain for problem in pool}
    where, per_step = section.prompts, section.prompts_per_step
    if absent:
        raise InputError(f"{where} has no prompt of {', '.join(sorted(absent))}; change rl.domains or rl.stages")
    if len(pool) < per_step:
        raise InputError(f"{where} has {len(pool)} prompts of {', '.join(stretch.domains)}, a step takes {per_step}")
    # a pass is cut to whole steps, so that no step holds a prompt twice: GRPO would see two groups of one prompt
    whole = len(pool) - len(pool) % per_step
    drawn: list[Problem] = []
    while len(drawn) < stretch.steps * per_step:
        drawn += generator.sample(pool, len(pool))[:whole]
    return drawn[: stretch.steps * per_step]


def check_reach(section: RL, model: Shape) -> None:
    """Raises InputError for more tokens than the model has positions; one without position embeddings has no end."""
    if model.rope_theta is not None and section.max_tokens > model.max_positions:
        raise InputError(
            f"rl.max_tokens={section.max_tokens} is more than the {model.max_positions} positions of the model"
        )


def check_lengths(order: Sequence[Problem], tokenizer: Any, section: RL) -> None:
    """Raises InputError when a prompt, as it is fed to the model, and a whole response exceed `rl.max_tokens`."""
    prompts = sorted({problem.prompt for problem in order})
    longest = max(len(ids) for ids in tokenizer(prompts)["input_ids"])
    if longest + section.max_new_tokens > section.max_tokens:
        raise InputError(
            f"the longest prompt has {longest} tokens; with rl.max_new_tokens={section.max_new_tokens} that is more "
            f"than rl.max_tokens={section.max_tokens}"
        )

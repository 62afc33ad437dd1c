"""One GRPO run as data, for both engines; presets; the order in which prompts are drawn."""

import dataclasses
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from prism_nemo.errors import InputError
from prism_nemo.recipe.presets import PRESETS
from prism_nemo.rl.rewards import RewardRules
from prism_nemo.verifiers import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of a curriculum: `steps` optimizer steps on prompts of `domains` only."""

    steps: int
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RLJob:
    """A GRPO run. Defaults are the paper's Table 21; [open-instruct] marks what it leaves open.

    Raises InputError for values that cannot be run.
    """

    model: str
    """Hugging Face directory of the policy to start from."""
    prompts: str
    """JSONL of problems (`prism_nemo.verifiers.Problem`)."""
    out: str
    """Where the trained Hugging Face directory goes."""
    domains: tuple[str, ...] = ("math", "code", "science")
    """Domains drawn from `prompts`."""
    steps: int = 1000
    """Optimizer steps; one on-policy update each."""
    prompts_per_step: int = 64
    samples_per_prompt: int = 16
    """Rollouts of a prompt: GRPO's group."""
    max_tokens: int = 16_384
    """Prompt and response together."""
    max_new_tokens: int = 14_336
    """Response."""
    temperature: float = 1.0
    top_p: float = 1.0
    learning_rate: float = 5e-7
    """Peak of AdamW's rate."""
    schedule: Literal["linear", "constant"] = "linear"
    """Linear: to zero at the last step."""
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    kl: float = 0.05
    """Weight of the KL term to the reference policy; 0 drops the reference model."""
    reference_every: int = 0
    """Steps between soft updates of the reference policy (TR-DPO; interval not in the paper); 0: it stays fixed."""
    reference_alpha: float = 0.6
    """Weight of the policy in a soft update [open-instruct]."""
    clip_low: float = 0.2
    """Lower clip of the importance ratio is 1 - this [open-instruct]."""
    clip_high: float = 0.272
    """Upper clip is 1 + this [open-instruct]."""
    importance_cap: float = 2.0
    """Cap of the trainer-to-sampler weight; 0: no correction. TRL samples from the trained weights: always 1."""
    loss: Literal["token", "sequence"] = "token"
    """Mean over all tokens of the batch, or over sequences of their token means."""
    normalize_std: bool = True
    """Divide advantages by the group's standard deviation."""
    dynamic_sampling: bool = False
    """Draw again until no group is all right or all wrong (NeMo-RL only)."""
    mask_truncated: bool = False
    """Leave completions that hit the limit out of the loss."""
    think_opened: bool = False
    """The prompts themselves end with `<think>`."""
    rewards: RewardRules = field(default_factory=RewardRules)
    stages: tuple[Stage, ...] = ()
    """A curriculum; empty: all domains mixed all the time. The steps must add up."""
    save_every: int = 20
    """Steps between kept checkpoints."""
    seed: int = 42
    rollouts_per_pass: int = 0
    """TRL: rollouts in one forward and backward pass; 0: all of a step."""
    verify_workers: int = 2
    """Completions judged at a time."""

    def __post_init__(self) -> None:
        for name in ("steps", "prompts_per_step", "max_new_tokens", "max_tokens", "save_every", "verify_workers"):
            if getattr(self, name) < 1:
                raise InputError(f"rl.{name} is {getattr(self, name)}; it must be at least 1")
        faults = (
            (self.samples_per_prompt < 2, f"rl.samples_per_prompt is {self.samples_per_prompt}; a group needs 2"),
            (self.max_new_tokens >= self.max_tokens, "rl.max_new_tokens must leave room for a prompt in rl.max_tokens"),
            (self.temperature <= 0, f"rl.temperature is {self.temperature}; rollouts need one above 0"),
            (not 0 < self.top_p <= 1, f"rl.top_p is {self.top_p}; it lies in (0, 1]"),
            (self.learning_rate <= 0, f"rl.learning_rate is {self.learning_rate}; it must be above 0"),
            (self.schedule not in ("linear", "constant"), f"rl.schedule is {self.schedule!r}; linear or constant"),
            (self.loss not in ("token", "sequence"), f"rl.loss is {self.loss!r}; token or sequence"),
            (self.kl < 0, f"rl.kl is {self.kl}; it must not be negative"),
            (not 0 <= self.clip_low < 1, f"rl.clip_low is {self.clip_low}; it lies in [0, 1)"),
            (self.clip_high < 0, f"rl.clip_high is {self.clip_high}; it must not be negative"),
            (bool(self.reference_every) and not self.kl, "rl.reference_every needs rl.kl above 0: no reference else"),
            (not 0 < self.reference_alpha <= 1, f"rl.reference_alpha is {self.reference_alpha}; it lies in (0, 1]"),
            (
                self.rewards.overlong_buffer >= self.max_new_tokens,
                "rewards.overlong_buffer must be below max_new_tokens",
            ),
            (
                bool(self.stages) and sum(stage.steps for stage in self.stages) != self.steps,
                f"the stages add up to {sum(stage.steps for stage in self.stages)} steps, rl.steps is {self.steps}",
            ),
        )
        for wrong, message in faults:
            if wrong:
                raise InputError(message)

    @property
    def rollouts_per_step(self) -> int:
        return self.prompts_per_step * self.samples_per_prompt

    @property
    def drawn_domains(self) -> tuple[str, ...]:
        """Domains that the run draws from, in any stage."""
        return tuple(sorted({domain for stage in self.stages for domain in stage.domains} or set(self.domains)))

    def to_json(self) -> str:
        """The job as JSON; `from_json` gives an equal one back."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "RLJob":
        """Raises InputError for unknown keys or wrong values."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RLJob":
        """A job from plain JSON values. Raises InputError for unknown keys (with the nearest known one)."""
        values = dict(values)
        _refuse_unknown("rl", values, cls)
        if "rewards" in values:
            _refuse_unknown("rl.rewards", values["rewards"], RewardRules)
            _refuse_types("rl.rewards", values["rewards"], RewardRules)
            values["rewards"] = RewardRules(**values["rewards"])
        if "stages" in values:
            values["stages"] = tuple(_stage(stage) for stage in _listed(values["stages"]))
        if "domains" in values:
            values["domains"] = tuple(_listed(values["domains"]))
        _refuse_types("rl", values, cls)
        return cls(**values)


def _stage(values: dict[str, Any] | str) -> Stage:
    """A stage from JSON, or from a recipe's `math+code:600`."""
    if isinstance(values, str):
        domains, _, steps = values.rpartition(":")
        if not (domains and steps.isdigit()):
            raise InputError(f"rl.stages: {values!r} is not of the form domain+domain:steps, such as math+code:600")
        return Stage(steps=int(steps), domains=tuple(domains.split("+")))
    _refuse_unknown("rl.stages", values, Stage)
    return Stage(steps=values["steps"], domains=tuple(values["domains"]))


def _listed(values: Sequence[Any] | str) -> Sequence[Any]:
    """A command line's `math,code` is a list."""
    return values.split(",") if isinstance(values, str) else values


def _refuse_types(where: str, values: dict[str, Any], kind: type) -> None:
    hints = get_type_hints(kind)
    for key, value in values.items():
        wanted = hints[key]
        if wanted in (int, bool, str, float) and type(value) not in ((int, float) if wanted is float else (wanted,)):
            raise InputError(f"{where}.{key} is {value!r}; it must be of type {wanted.__name__}")


def _refuse_unknown(where: str, values: dict[str, Any], kind: type) -> None:
    import difflib

    known = [entry.name for entry in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise InputError(f"unknown key {where}.{key}" + (f"; did you mean {near[0]}?" if near else ""))


def preset(name: str, **changes: Any) -> RLJob:
    """A job from a preset (`paper`, `dapo`, `nemotron_nano`) and the given values, which win."""
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return RLJob.from_dict({**PRESETS[name], **changes})


def draw(problems: Sequence[Problem], job: RLJob) -> list[Problem]:
    """The prompts of the whole run in order, `prompts_per_step` for each step: passes over the shuffled pool.

    A stage draws from its own domains; within a stage no prompt comes again before every other came. Deterministic.
    Raises InputError when a domain has no prompt or a step would repeat one.
    """
    stages = job.stages or (Stage(steps=job.steps, domains=job.domains),)
    generator = random.Random(job.seed)
    order: list[Problem] = []
    for stage in stages:
        order += _draw_stage(problems, stage, job, generator)
    return order


def _draw_stage(problems: Sequence[Problem], stage: Stage, job: RLJob, generator: random.Random) -> list[Problem]:
    pool = [problem for problem in problems if problem.domain in stage.domains]
    absent = set(stage.domains) - {problem.domain for problem in pool}
    if absent:
        raise InputError(f"{job.prompts} has no prompt of {', '.join(sorted(absent))}; change rl.domains or rl.stages")
    if len(pool) < job.prompts_per_step:
        raise InputError(
            f"{job.prompts} has {len(pool)} prompts of {', '.join(stage.domains)}, a step takes {job.prompts_per_step}"
        )
    drawn: list[Problem] = []
    while len(drawn) < stage.steps * job.prompts_per_step:
        # a pass is cut to whole steps, so that no step holds a prompt twice: GRPO would see two groups of one prompt
        whole = len(pool) - len(pool) % job.prompts_per_step
        drawn += generator.sample(pool, len(pool))[:whole]
    return drawn[: stage.steps * job.prompts_per_step]


def load_job(path: Path) -> RLJob:
    """A job from a JSON file. Raises InputError when it cannot be read."""
    try:
        return RLJob.from_json(path.read_text())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no RL job: {error}") from None

"""An rl section's curriculum, and what makes the section impossible."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from prism_nemo.errors import InputError
from prism_nemo.recipe.parts import RL, Rewards

DOMAINS = ("math", "code", "science")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a curriculum: `steps` optimizer steps on prompts of `domains` only."""

    steps: int
    domains: tuple[str, ...]


def curriculum(section: RL) -> tuple[Stretch, ...]:
    """The stretches of `rl.stages`, or the whole run on all domains. Raises InputError for one of another form."""
    return tuple(map(_stretch, section.stages)) or (Stretch(steps=section.steps, domains=section.domains),)


def drawn_domains(section: RL) -> tuple[str, ...]:
    """Domains that a run draws from, in any stretch."""
    return tuple(sorted({domain for stretch in curriculum(section) for domain in stretch.domains}))


def shortened(section: RL, steps: int) -> tuple[str, ...]:
    """`rl.stages` for a run of `steps`, in the same shares; a stretch that is too short for one step is left out."""
    stretches = curriculum(section) if section.stages else ()
    ends = list(accumulate((stretch.steps for stretch in stretches), initial=0))
    places = pairwise(round(end * steps / max(1, ends[-1])) for end in ends)
    pairs = zip(stretches, places, strict=True)
    return tuple(f"{'+'.join(stretch.domains)}:{end - start}" for stretch, (start, end) in pairs if end > start)


def _stretch(text: str) -> Stretch:
    domains, _, steps = text.rpartition(":")
    if not (domains and steps.isdecimal()):
        raise InputError(f"rl.stages: {text!r} is not of the form domain+domain:steps, such as math+code:600")
    return Stretch(steps=int(steps), domains=tuple(domains.split("+")))


def check_rl(section: RL) -> None:
    """Raises InputError, naming the key, for values that no engine can run."""
    for wrong, message in (*_faults(section), *_reward_faults(section.rewards, section.max_new_tokens)):
        if wrong:
            raise InputError(message)


def _faults(rl: RL) -> Iterator[tuple[bool, str]]:
    for name in ("steps", "prompts_per_step", "max_new_tokens", "max_tokens", "save_every"):
        yield getattr(rl, name) < 1, f"rl.{name} is {getattr(rl, name)}; it must be at least 1"
    for name in ("kl", "clip_high", "importance_cap", "warmup_steps", "weight_decay", "reference_every"):
        yield getattr(rl, name) < 0, f"rl.{name} is {getattr(rl, name)}; it must not be negative"
    for name in ("temperature", "learning_rate", "max_grad_norm"):
        yield getattr(rl, name) <= 0, f"rl.{name} is {getattr(rl, name)}; it must be above 0"
    for name, known in (("schedule", ("linear", "constant")), ("loss", ("token", "sequence"))):
        yield getattr(rl, name) not in known, f"rl.{name} is {getattr(rl, name)!r}; {' or '.join(known)}"
    yield rl.warmup_steps >= rl.steps, f"rl.warmup_steps={rl.warmup_steps} is not below rl.steps={rl.steps}"
    yield rl.samples_per_prompt < 2, f"rl.samples_per_prompt is {rl.samples_per_prompt}; a group needs 2"
    yield rl.max_new_tokens >= rl.max_tokens, "rl.max_new_tokens must leave room for a prompt in rl.max_tokens"
    yield not 0 < rl.top_p <= 1, f"rl.top_p is {rl.top_p}; it lies in (0, 1]"
    yield not 0 <= rl.clip_low < 1, f"rl.clip_low is {rl.clip_low}; it lies in [0, 1)"
    yield bool(rl.reference_every) and not rl.kl, "rl.reference_every needs rl.kl above 0: no reference else"
    yield not 0 < rl.reference_alpha <= 1, f"rl.reference_alpha is {rl.reference_alpha}; it lies in (0, 1]"
    steps = sum(stretch.steps for stretch in curriculum(rl))
    yield steps != rl.steps, f"the stages add up to {steps} steps, rl.steps is {rl.steps}"
    unknown = sorted({*drawn_domains(rl)} - {*DOMAINS})
    yield bool(unknown), f"rl.domains or rl.stages name {', '.join(unknown)}; the domains are {', '.join(DOMAINS)}"
    yield not rl.domains, f"rl.domains is empty; the domains are {', '.join(DOMAINS)}"


def _reward_faults(rewards: Rewards, max_new_tokens: int) -> Iterator[tuple[bool, str]]:
    for name in ("stop_penalty", "repetition_penalty", "overlong_penalty", "overlong_buffer"):
        value = getattr(rewards, name)
        yield value < 0, f"rl.rewards.{name} is {value}; a penalty is given as a positive number"
    yield rewards.repetition_ngram < 1, f"rl.rewards.repetition_ngram is {rewards.repetition_ngram}; at least 1"
    yield rewards.overlong_buffer >= max_new_tokens, "rl.rewards.overlong_buffer must be below rl.max_new_tokens"

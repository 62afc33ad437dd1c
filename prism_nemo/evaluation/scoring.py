"""From samples in the store to scores: pure, repeatable, and it says what was counted."""

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prism_nemo.evaluation.benchmark import Benchmark
from prism_nemo.evaluation.protocol import Protocol
from prism_nemo.evaluation.sample import Sample, SampleKey
from prism_nemo.evaluation.statistics import Estimate, majority, pass_at_k, score_interval
from prism_nemo.verifiers import Verdict, split_thought, verify_many
from prism_nemo.verifiers.math import extract

BATCH = 2000
"""Verdicts between two looks at the progress."""
KEPT = 1 << 14
"""Verdicts that a process keeps: after the scores of a chain its analyses ask for the same ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A sample with its verdict."""

    sample: Sample
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One model on one benchmark under one protocol. Shares are fractions of 1."""

    model: str
    """Fingerprint."""
    name: str
    """The model's name in tables."""
    benchmark: str
    task: str
    domain: str
    protocol: str
    """Fingerprint."""
    seed: int = 0
    asked: Protocol | None = None
    """The protocol itself: sampling and prompting; None where it is not known."""
    held_out: bool
    """No part of an average."""
    questions: int
    k: int
    """Samples asked per question."""
    samples: int
    """Samples found; fewer than questions * k: the score is of what there is, and says so."""
    avg: Estimate
    """avg@k with its 95 % interval over questions."""
    pass_at: Mapping[int, float]
    """k' -> unbiased pass@k', for powers of two and k itself, as far as every question has so many samples."""
    majority: float
    """maj@k; of code: not defined (NaN)."""
    median_tokens: float
    mean_tokens: float
    truncated: float
    """Share that used up its tokens."""
    no_answer: float
    """Share without a readable final answer."""
    errors: float
    """Share on which scoring failed or whose program could not be run."""
    timeouts: float
    """Share whose scoring or program ran out of time."""
    think_format: float
    """Share in the form <think> ... </think> response."""
    nll: float
    """Mean over samples of their tokens' mean negative log-probability, nats (the paper's confidence, Table 15)."""
    nll_correct: float
    nll_incorrect: float
    backends: tuple[str, ...]
    question_scores: Mapping[str, float] = field(repr=False)
    """Question id -> share of right samples: what paired comparisons need."""

    @property
    def complete(self) -> bool:
        return self.samples == self.questions * self.k


def judge(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    *,
    workers: int = 2,
    opened: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Judged]:
    """A verdict for every sample; a verdict never stops the run.

    What decides is judged once per question: in mathematics the final answer, elsewhere the response.
    """
    thoughts = [split_thought(sample.text, opened=opened) for sample in samples]
    asked = {sample.question: repr(benchmark.problems[sample.question]) for sample in samples}
    deciding = [
        _digest(asked[sample.question], extract(thought.response) if benchmark.domain == "math" else thought.response)
        for sample, thought in zip(samples, thoughts, strict=True)
    ]
    firsts = dict(reversed(list(zip(deciding, samples, strict=True))))
    verdicts = {key: _known[key] for key in firsts if key in _known}
    waiting = [(key, firsts[key]) for key in sorted(firsts.keys() - verdicts.keys())]
    for start in range(0, len(waiting), BATCH):
        part = waiting[start : start + BATCH]
        problems = [benchmark.problems[sample.question] for _, sample in part]
        found = verify_many(problems, [sample.text for _, sample in part], workers=workers, opened=opened)
        verdicts.update(zip((key for key, _ in part), found, strict=True))
        progress(len(verdicts), len(firsts))
    _keep(verdicts)
    return [
        Judged(sample=sample, verdict=dataclasses.replace(verdicts[key], think_format=thought.well_formed))
        for sample, key, thought in zip(samples, deciding, thoughts, strict=True)
    ]


_known: dict[bytes, Verdict] = {}


def _digest(*parts: str | None) -> bytes:
    return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).digest()


def _keep(verdicts: Mapping[bytes, Verdict]) -> None:
    """All but those that time may change."""
    _known.update((key, verdict) for key, verdict in verdicts.items() if verdict.outcome != "timeout")
    for key in list(_known)[: max(0, len(_known) - KEPT)]:
        del _known[key]


def score(
    benchmark: Benchmark, judged: Sequence[Judged], *, k: int, name: str = "", asked: Protocol | None = None
) -> Score:
    """The score of one model's judged samples under one protocol. Raises ValueError when there are none.

    A question without any sample is no part of the average, and makes the score incomplete.
    """
    if not judged:
        raise ValueError(f"{benchmark.name}: no samples to score")
    by_question: dict[str, list[Judged]] = {}
    for entry in judged:
        by_question.setdefault(entry.sample.question, []).append(entry)
    shares = {
        question: float(np.mean([entry.verdict.correct for entry in by_question[question]]))
        for question in benchmark.problems
        if question in by_question
    }
    first = judged[0].sample
    outcomes = Counter(entry.verdict.outcome for entry in judged)
    tokens = [entry.sample.tokens for entry in judged]
    total = len(judged)
    return Score(
        model=first.model,
        name=name or first.model[:12],
        benchmark=benchmark.name,
        task=benchmark.task,
        domain=benchmark.domain,
        protocol=first.protocol,
        seed=first.seed,
        asked=asked,
        held_out=benchmark.held_out,
        questions=len(benchmark.problems),
        k=k,
        samples=total,
        avg=score_interval(list(shares.values())),
        pass_at=_pass_at(list(by_question.values()), k),
        majority=_majority(benchmark, list(by_question.values())),
        median_tokens=float(np.median(tokens)),
        mean_tokens=float(np.mean(tokens)),
        truncated=sum(entry.sample.finish == "length" for entry in judged) / total,
        no_answer=outcomes["no_answer"] / total,
        errors=outcomes["error"] / total,
        timeouts=outcomes["timeout"] / total,
        think_format=sum(entry.verdict.think_format for entry in judged) / total,
        nll=_mean([entry.sample.nll for entry in judged]),
        nll_correct=_mean([entry.sample.nll for entry in judged if entry.verdict.correct]),
        nll_incorrect=_mean([entry.sample.nll for entry in judged if not entry.verdict.correct]),
        backends=tuple(sorted({entry.sample.backend for entry in judged})),
        question_scores=shares,
    )


def samples_of[Key: SampleKey](benchmark: Benchmark, samples: Iterable[Key], k: int) -> list[Key]:
    """Those, or those keys, that answer the benchmark's present questions, the first k of each question."""
    from prism_nemo.evaluation.sample import prompt_hash

    hashes = {question: prompt_hash(message) for question, message in benchmark.messages.items()}
    return [
        sample
        for sample in samples
        if sample.task == benchmark.task and sample.index < k and hashes.get(sample.question) == sample.prompt
    ]


def _pass_at(questions: Sequence[Sequence[Judged]], most: int) -> dict[int, float]:
    fewest = min(len(entries) for entries in questions)
    counts = sorted({*(2**power for power in range(1, 11)), most})
    return {
        k: float(np.mean([pass_at_k([[entry.verdict.correct for entry in entries]], k)[0] for entries in questions]))
        for k in counts
        if 1 < k <= fewest
    }


def _majority(benchmark: Benchmark, questions: Sequence[Sequence[Judged]]) -> float:
    if benchmark.domain == "code":
        return math.nan
    votes = [
        majority([_vote(entry) for entry in entries], [entry.verdict.correct for entry in entries])
        for entries in questions
    ]
    return float(np.mean(votes))


def _vote(entry: Judged) -> str | None:
    """Every right answer is one candidate, however it is spelt; wrong ones differ by their text without blanks."""
    if entry.verdict.correct:
        return "\0right"
    extracted = entry.verdict.extracted
    return "".join(extracted.split()) or None if extracted else None


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def as_record(score: Score) -> dict[str, Any]:
    """Plain values for JSON; NaN becomes null."""
    record = dataclasses.asdict(score) | {"complete": score.complete}
    record["pass_at"] = {str(k): value for k, value in score.pass_at.items()}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}


__all__ = ["Judged", "SampleKey", "Score", "as_record", "judge", "samples_of", "score"]

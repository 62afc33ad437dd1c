"""What a model makes of a long context, by length: needles found, and the loss at each distance into a document.

A pico model may find no needle and still have learnt something of the task, so next to the greedy answer stand the
loss of the right answer and its rank among alternatives. The loss on plain long documents needs no task at all.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prism_nemo.errors import InputError
from prism_nemo.evaluation.backends.hf import HfBackend
from prism_nemo.evaluation.backends.reading import BATCH_TOKENS
from prism_nemo.evaluation.held_out import ratio_interval, read_tokens
from prism_nemo.evaluation.identity import model_facts
from prism_nemo.evaluation.needle import Question
from prism_nemo.evaluation.protocol import Protocol, Sampling
from prism_nemo.evaluation.sampling import generate, keys_of
from prism_nemo.evaluation.statistics import Estimate, mean_interval, score_interval
from prism_nemo.evaluation.store import GenerationStore

TASK = "needle@1"
EDGES = (0, 256, 512, 1024)
"""Tokens: limits of the stretches whose loss is told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleScore:
    """One model on the needles of one length; intervals are over questions."""

    length: int
    """Tokens of the context."""
    questions: int
    exact: Estimate
    """Share of greedy answers, as many tokens as the right one, whose first word is the right value."""
    loss: Estimate
    """Nats per token of the right answer."""
    first: Estimate
    """Share where the right answer is the likeliest of the alternatives."""
    rank: Estimate
    """Mean place of the right answer among the alternatives, 1 is best; ties count half."""
    chance: float
    """`first` of a guesser: 1 / alternatives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionLoss:
    """Loss of tokens that lie from `begin` up to `end` tokens into a document, with all of the document before them."""

    begin: int
    end: int
    loss: Estimate
    """Nats per token; the interval resamples documents."""
    documents: int
    tokens: int
    document_nats: tuple[float, ...] = field(repr=False)
    """Nats per token of each document, in the order given: for paired comparisons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongContext:
    """One model's long-context curve."""

    model: str
    """Fingerprint."""
    name: str
    needles: tuple[NeedleScore, ...]
    """By length."""
    positions: tuple[PositionLoss, ...]
    """By distance into the document; empty without documents."""

    def as_record(self) -> dict[str, Any]:
        """Plain values for JSON, without single documents."""
        return {
            "model": self.model,
            "name": self.name,
            "needles": [dataclasses.asdict(score) for score in self.needles],
            "positions": [_without_documents(loss) for loss in self.positions],
        }


def long_context(
    model_dir: Path | str,
    questions: Sequence[Question],
    store: GenerationStore,
    *,
    documents: Path | str | Iterable[str] | Iterable[Sequence[int]] = (),
    edges: Sequence[int] = EDGES,
    device: str | None = None,
) -> LongContext:
    """A model's needles by length, and its loss by position on `documents` of at least `edges[-1]` tokens.

    Greedy answers go through the store: those it has are not made again. `documents`: what `held_out_loss` takes.
    Raises InputError for a bad model directory, a context too small, or fewer than two long enough documents.
    """
    model_dir = Path(model_dir)
    facts = model_facts(model_dir, store.described("models"))
    backend = HfBackend(model_dir, device=device, facts=facts)
    exact = _exact(backend, questions, store)
    nats, ranks = _likelihoods(backend, questions)
    return LongContext(
        model=facts["fingerprint"],
        name=facts["name"],
        needles=tuple(_score(group, exact, nats, ranks) for group in _by_length(questions).values()),
        positions=_positions(backend, model_dir, documents, edges) if documents else (),
    )


def _exact(backend: HfBackend, questions: Sequence[Question], store: GenerationStore) -> dict[str, float]:
    """Question id -> whether the greedy answer is right; one length at a time, so that nothing is padded."""
    longest = max(len(_ending(backend.tokenizer.encode, question, question.answer)) for question in questions)
    sampling = Sampling(temperature=0, max_new_tokens=longest, stop=("\n",))
    protocol = Protocol(sampling=sampling, prompting=backend.prompting)
    found: dict[str, float] = {}
    for group in _by_length(questions).values():
        messages = {question.id: question.prompt for question in group}
        generate(backend, store, task=TASK, messages=messages, k=1, sampling=sampling)
        keys = keys_of(model=backend.facts["fingerprint"], task=TASK, messages=messages, protocol=protocol, k=1)
        for key, question in zip(keys, group, strict=True):
            sample = store.get(key)
            words = sample.text.split() if sample else []
            found[question.id] = float(bool(words) and words[0].rstrip(".,;") == question.answer.strip())
    return found


def _by_length(questions: Iterable[Question]) -> dict[int, list[Question]]:
    groups: dict[int, list[Question]] = {}
    for question in sorted(questions, key=lambda question: question.length):
        groups.setdefault(question.length, []).append(question)
    return groups


@torch.inference_mode()
def _likelihoods(backend: HfBackend, questions: Sequence[Question]) -> tuple[dict[str, float], dict[str, float]]:
    """Question id -> nats per token of the right answer; question id -> its rank among the alternatives."""
    nats: dict[str, float] = {}
    ranks: dict[str, float] = {}
    for length, group in _by_length(questions).items():
        for start in range(0, len(group), _rows(length)):
            batch = group[start : start + _rows(length)]
            for question, surprise, counts in zip(batch, *_surprise(backend, batch), strict=True):
                nats[question.id] = float(surprise[0] / counts[0])
                others = surprise[1:] - surprise[0]
                ranks[question.id] = 1 + float((others < 0).sum() + 0.5 * (others == 0).sum())
    return nats, ranks


def _surprise(backend: HfBackend, questions: Sequence[Question]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each question: nats and tokens of each alternative, (alternatives,)."""
    encode = backend.tokenizer.encode
    logits, cache, mask = backend.reader.read([encode(question.prompt) for question in questions])
    endings = [[_ending(encode, question, text) for text in question.alternatives] for question in questions]
    owner = torch.tensor([i for i, texts in enumerate(endings) for _ in texts], device=logits.device)
    flat = [ending for texts in endings for ending in texts]
    width = max(map(len, flat))
    ids = torch.tensor([[*ending, *[0] * (width - len(ending))] for ending in flat], device=logits.device)
    chances = [torch.log_softmax(logits, dim=-1)[owner]]
    if width > 1:
        cache.reorder_cache(owner)
        mask = torch.cat([mask[owner], mask.new_ones(len(flat), width - 1)], dim=1)
        chances.append(torch.log_softmax(backend.reader.read_on(ids[:, :-1], mask, cache), dim=-1))
    chosen = torch.cat(chances, dim=1).gather(2, ids[..., None])[..., 0].double().cpu().numpy()
    counts = np.array([len(ending) for ending in flat])
    surprise = -np.where(np.arange(width) < counts[:, None], chosen, 0.0).sum(axis=1)
    cuts = np.cumsum([len(texts) for texts in endings])[:-1]
    return np.split(surprise, cuts), np.split(counts, cuts)


def _ending(encode: Any, question: Question, text: str) -> list[int]:
    """The tokens that `text` adds to the prompt; the last line decides, for a line break is a border of tokens."""
    line = question.prompt[question.prompt.rindex("\n") :]
    before, after = encode(line), encode(line + text)
    if after[: len(before)] != before or len(after) == len(before):
        raise InputError(f"the tokenizer joins {text!r} with the words before it; its likelihood cannot be told apart")
    return list(after[len(before) :])


def _score(
    questions: Sequence[Question], exact: dict[str, float], nats: dict[str, float], ranks: dict[str, float]
) -> NeedleScore:
    names = [question.id for question in questions]
    return NeedleScore(
        length=questions[0].length,
        questions=len(names),
        exact=score_interval([exact[name] for name in names]),
        loss=mean_interval([nats[name] for name in names]),
        first=score_interval([float(ranks[name] == 1) for name in names]),
        rank=mean_interval([ranks[name] for name in names]),
        chance=1 / len(questions[0].alternatives),
    )


def _positions(backend: HfBackend, model_dir: Path, documents: Any, edges: Sequence[int]) -> tuple[PositionLoss, ...]:
    window = edges[-1]
    long = [tokens[:window] for tokens in read_tokens(model_dir, documents) if len(tokens) >= window]
    if len(long) < 2:
        raise InputError(f"{len(long)} documents have {window} tokens; the loss by position needs at least 2 of them")
    pairs = [(tokens[:1], tokens[1:]) for tokens in long]
    nats = np.array([found.nats for _, found in sorted(backend.likelihoods(pairs), key=lambda entry: entry[0])])
    found = []
    for begin, end in itertools.pairwise(edges):
        inside = nats[:, max(begin - 1, 0) : end - 1]  # the first token is only read
        each = inside.sum(axis=1), np.full(len(long), inside.shape[1])
        found.append(
            PositionLoss(
                begin=begin,
                end=end,
                loss=ratio_interval(*each),
                documents=len(long),
                tokens=inside.size,
                document_nats=tuple((each[0] / each[1]).tolist()),
            )
        )
    return tuple(found)


def _rows(window: int) -> int:
    return max(1, BATCH_TOKENS // window)


def _without_documents(entry: PositionLoss) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(entry).items() if key != "document_nats"}

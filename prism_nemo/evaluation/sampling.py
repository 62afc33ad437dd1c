"""Sampling into the store: what is missing, and only that."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prism_nemo.errors import InputError
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.protocol import Protocol as AskingProtocol
from prism_nemo.evaluation.sample import Sample, SampleKey, prompt_hash
from prism_nemo.evaluation.store import GenerationStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to sample."""

    key: SampleKey
    message: str
    """The user's message; the backend renders it."""


Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context (at least one) and of its continuation (at least one)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """How likely a continuation is after its context."""

    nats: tuple[float, ...]
    """Negative log-probability of each of its tokens."""
    greedy: bool
    """Each of its tokens is the likeliest one at its place."""


class Backend(Protocol):
    """What samples: Hugging Face here, vLLM here, or a server."""

    facts: dict[str, Any]
    """Of the model: "fingerprint", "name", "path" (`identity.model_facts`)."""
    prompting: Prompting
    """As it is really done: the chat template's text filled in where it is known."""
    failures: dict[str, str]
    """Question id/index -> why it could not be sampled in this run; such samples stay missing."""

    @property
    def name(self) -> str:
        """What samples, kept with each sample: `hf float32`, `vllm`, `openai granite`."""

    def check(self, requests: Sequence[Request], sampling: Sampling) -> None:
        """Refuse what cannot work (InputError), e.g. a context too small, before anything is sampled."""

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Request]]:
        """Cut the work into the pieces that `complete` begins at once."""

    def complete(self, pieces: Iterable[Sequence[Request]], sampling: Sampling) -> Iterator[list[Sample]]:
        """Sample; takes a piece when it has room for it, yields samples as soon as they are finished."""

    def likelihoods(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        """(place in `pairs`, likelihood), as soon as each is known."""


@dataclass(slots=True, kw_only=True)
class Generated:
    """What a call of `generate` did."""

    asked: int
    found: int
    """In the store already."""
    sampled: int = 0
    """By this process."""
    failures: dict[str, str] = field(default_factory=dict)


def keys_of(
    *, model: str, task: str, messages: Mapping[str, str], protocol: AskingProtocol, k: int, seed: int = 0
) -> list[SampleKey]:
    """The keys of k samples of every question, question by question."""
    mark = protocol.fingerprint
    return [
        SampleKey(model=model, task=task, question=question, prompt=prompted, protocol=mark, seed=seed, index=index)
        for question, prompted in ((name, prompt_hash(text)) for name, text in messages.items())
        for index in range(k)
    ]


def plan(
    backend: Backend,
    store: GenerationStore,
    *,
    task: str,
    messages: Mapping[str, str],
    k: int,
    sampling: Sampling,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tuple[int, list[Request]]:
    """What `generate` would do: (samples asked for, those that have to be made).

    Raises InputError for work that cannot succeed.
    """
    if not messages:
        raise InputError(f"{task}: no questions to ask")
    protocol = AskingProtocol(sampling=sampling, prompting=backend.prompting)
    keys = keys_of(model=backend.facts["fingerprint"], task=task, messages=messages, protocol=protocol, k=k, seed=seed)
    mine = keys[shard[0] :: shard[1]]
    requests = [Request(key=key, message=messages[key.question]) for key in store.missing(mine)]
    backend.check(requests, sampling)
    return len(mine), requests


def generate(
    backend: Backend,
    store: GenerationStore,
    *,
    task: str,
    messages: Mapping[str, str],
    k: int,
    sampling: Sampling,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Generated:
    """Bring the store to k samples of every question: question id -> user's message.

    `shard` (i, n) takes every n-th sample from the i-th, for array tasks: nothing is sampled twice. Processes
    that run the same work without shards share it too: each takes the pieces in its own order and leaves out what
    another one has finished; only what several begin at once, a piece or two, is sampled twice and kept once.
    `progress(done, total)` counts the samples asked for. Raises InputError for work that cannot succeed.
    """
    how: dict[str, Any] = {
        "task": task,
        "messages": messages,
        "k": k,
        "sampling": sampling,
        "seed": seed,
        "shard": shard,
    }
    asked, requests = plan(backend, store, **how)
    protocol = AskingProtocol(sampling=sampling, prompting=backend.prompting)
    store.describe("models", backend.facts["fingerprint"], backend.facts)
    store.describe("protocols", protocol.fingerprint, protocol.facts())
    done = Generated(asked=asked, found=asked - len(requests))
    finished = done.found
    progress(finished, asked)
    pieces = backend.batches(requests, sampling)
    random.SystemRandom().shuffle(pieces)  # another order in every process, also in containers with equal process ids

    def unfinished() -> Iterator[list[Request]]:
        nonlocal finished
        for piece in pieces:
            store.refresh()
            missing = {key.digest for key in store.missing(request.key for request in piece)}
            finished += len(piece) - len(missing)
            if missing:
                yield [request for request in piece if request.key.digest in missing]
            else:
                progress(finished, asked)

    for samples in backend.complete(unfinished(), sampling) if pieces else ():
        done.sampled += store.append(samples)
        finished += len(samples)
        progress(finished, asked)
    done.failures = dict(backend.failures)
    return done

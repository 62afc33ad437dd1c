"""A model on benchmarks: sample what is missing, judge, score."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError, PrismError
from prism_nemo.evaluation.apart import APART, Progress, gpus, see_only, side_by_side
from prism_nemo.evaluation.benchmark import Benchmark
from prism_nemo.evaluation.protocol import Prompting, Protocol, Sampling, read_protocol
from prism_nemo.evaluation.sample import Sample
from prism_nemo.evaluation.sampling import Backend, generate, plan
from prism_nemo.evaluation.scoring import Score, judge, samples_of, score
from prism_nemo.evaluation.store import GenerationStore
from prism_nemo.verifiers import require_tools


def evaluate(
    model: Path | str | Backend,
    benchmarks: Sequence[Benchmark] | Benchmark,
    store: GenerationStore,
    *,
    k: int | None = None,
    sampling: Sampling | None = None,
    prompting: Prompting | None = None,
    seed: int = 0,
    workers: int = 2,
    shard: tuple[int, int] = (0, 1),
    progress: Progress = lambda what, done, total: None,
) -> list[Score]:
    """Scores of a model on each benchmark, in order; samples already in the store are not made again.

    `model` is a Hugging Face directory (sampled with transformers, `prompting` raw unless given) or a backend. `k` and
    `sampling` replace the benchmarks' own. With a `shard` other than (0, 1) it samples its part and scores nothing.
    Raises InputError before anything is sampled for what cannot work; PrismError when a backend could not sample all.
    """
    benchmarks = [benchmarks] if isinstance(benchmarks, Benchmark) else list(benchmarks)
    backend = _backend(model, prompting, store)
    asked = [_asked(benchmark, k, sampling) for benchmark in benchmarks]
    if shard == (0, 1):
        _check_tools(asked)
    _sample(backend, asked, store, seed, shard, progress)
    if shard != (0, 1):
        return []
    return _scores(store, asked, backend.facts["fingerprint"], backend.prompting, seed, workers, progress)


def evaluate_checkpoint(
    model: Path,
    benchmarks: Sequence[Benchmark],
    store: Path,
    *,
    backend: str = "hf",
    prompting: Prompting | None = None,
    k: int | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    workers: int = 2,
    progress: Progress = lambda what, done, total: None,
) -> list[Score]:
    """`evaluate` for several models one after another: `store` is a folder, `backend` hf or vllm.

    vLLM samples in processes of their own, one with a share of the work on each GPU of this machine, so that the next
    model finds the GPUs free.
    """
    asked = [_asked(benchmark, k, sampling) for benchmark in benchmarks]
    _check_tools(asked)
    bare = [dataclasses.replace(benchmark, problems={}) for benchmark in asked]  # sampling needs no keys and tests
    how = (model, bare, store, backend, prompting or Prompting(), seed)
    if backend in APART:
        devices = gpus() or [""]
        calls = [(*how, (number, len(devices)), device) for number, device in enumerate(devices)]
        mark, prompted = side_by_side(_sample_checkpoint, calls, progress=progress)[0]
    else:
        mark, prompted = _sample_checkpoint(*how, (0, 1), "", progress=progress)
    with GenerationStore(store) as opened:
        return _scores(opened, asked, mark, prompted, seed, workers, progress)


def _sample_checkpoint(
    model: Path,
    benchmarks: Sequence[Benchmark],
    store: Path,
    backend: str,
    prompting: Prompting,
    seed: int,
    shard: tuple[int, int],
    device: str,
    *,
    progress: Progress,
) -> tuple[str, Prompting]:
    """(the model's fingerprint, the prompting as it was really done)"""
    from prism_nemo.evaluation.backends import open_backend

    see_only(device)
    with GenerationStore(store) as opened:
        sampler = open_backend(backend, str(model), prompting, opened)
        _sample(sampler, benchmarks, opened, seed, shard, progress)
        return sampler.facts["fingerprint"], sampler.prompting


def _asked(benchmark: Benchmark, k: int | None, sampling: Sampling | None) -> Benchmark:
    return dataclasses.replace(benchmark, samples=k or benchmark.samples, sampling=sampling or benchmark.sampling)


def _check_tools(benchmarks: Sequence[Benchmark]) -> None:
    require_tools(problem for benchmark in benchmarks for problem in benchmark.problems.values())


def _sample(
    backend: Backend,
    benchmarks: Sequence[Benchmark],
    store: GenerationStore,
    seed: int,
    shard: tuple[int, int],
    progress: Progress,
) -> None:
    for benchmark in benchmarks:  # all of them before the first hours of the first
        plan(backend, store, **_work(benchmark, seed, shard))
    for benchmark in benchmarks:
        done = generate(
            backend,
            store,
            **_work(benchmark, seed, shard),
            progress=lambda at, of, name=benchmark.name: progress(f"{name}: sampling", at, of),  # type: ignore[misc]
        )
        if done.failures:
            where, why = next(iter(done.failures.items()))
            raise PrismError(
                f"{benchmark.name}: {len(done.failures)} of {done.asked} samples could not be had ({where}: {why}); "
                "run the same command again for the missing ones"
            )


def _work(benchmark: Benchmark, seed: int, shard: tuple[int, int]) -> dict[str, Any]:
    return {
        "task": benchmark.task,
        "messages": benchmark.messages,
        "k": benchmark.samples,
        "sampling": benchmark.sampling,
        "seed": seed,
        "shard": shard,
    }


def _scores(
    store: GenerationStore,
    benchmarks: Sequence[Benchmark],
    model: str,
    prompting: Prompting,
    seed: int,
    workers: int,
    progress: Progress,
) -> list[Score]:
    """Of what was just sampled: each benchmark under its own protocol."""
    found: list[Score] = []
    for benchmark in benchmarks:
        mark = Protocol(sampling=benchmark.sampling, prompting=prompting).fingerprint
        how: dict[str, Any] = {"protocols": [mark], "seed": seed, "workers": workers, "progress": progress}
        found += score_store(store, [benchmark], models=[model], **how)
    return found


def _backend(model: Path | str | Backend, prompting: Prompting | None, store: GenerationStore) -> Backend:
    if not isinstance(model, (Path, str)):
        return model
    from prism_nemo.evaluation.backends import open_backend

    return open_backend("hf", str(model), prompting or Prompting(), store)


def score_store(
    store: GenerationStore,
    benchmarks: Sequence[Benchmark],
    *,
    models: Sequence[str] | None = None,
    protocols: Sequence[str] = (),
    seed: int | None = None,
    k: int | None = None,
    names: Mapping[str, str] | None = None,
    workers: int = 2,
    progress: Progress = lambda what, done, total: None,
) -> list[Score]:
    """Scores from the store alone: one per benchmark, model, protocol and seed that has samples.

    Samples drawn with the benchmark's own sampling parameters count; only where a model has none, those drawn with
    others. `protocols` (fingerprints or their beginnings) are counted instead, whatever their parameters. `models` are
    fingerprints in the order of the table; `k` replaces the benchmarks' own number of samples; `names` maps a
    fingerprint to its name in tables. Raises InputError for a model or protocol that is not in the store.
    """
    known = store.described("models")
    for model in models or ():
        if model not in known:
            raise InputError(f"{store.folder} has no samples of model {model}; known: {', '.join(known) or 'none'}")
    asked = {mark: read_protocol(facts) for mark, facts in store.described("protocols").items()}
    wanted = {mark for word in protocols for mark in _protocol(store, asked, word)}
    labels = {name: facts.get("name", name[:12]) for name, facts in known.items()} | dict(names or {})
    scores = []
    for benchmark in benchmarks:
        count = k or benchmark.samples
        for model in models or sorted(known):
            where: dict[str, Any] = {"task": benchmark.task, "model": model} | ({} if seed is None else {"seed": seed})
            groups: dict[tuple[str, int], list[Sample]] = {}
            for sample in samples_of(benchmark, store.samples(**where), count):
                groups.setdefault((sample.protocol, sample.seed), []).append(sample)
            own = {key for key in groups if asked[key[0]].sampling == benchmark.sampling}
            for key in sorted(key for key in groups if key[0] in wanted or (not wanted and key in (own or groups))):
                judged = judge(
                    benchmark,
                    groups[key],
                    workers=workers,
                    opened=asked[key[0]].prompting.opens_thought,
                    progress=lambda at, of, name=benchmark.name: progress(f"{name}: scoring", at, of),  # type: ignore[misc]
                )
                scores.append(score(benchmark, judged, k=count, name=labels[model], asked=asked[key[0]]))
    return scores


def _protocol(store: GenerationStore, asked: Mapping[str, Protocol], beginning: str) -> list[str]:
    found = [mark for mark in asked if mark.startswith(beginning)]
    if not found:
        marks = ", ".join(mark[:8] for mark in asked)
        raise InputError(f"{store.folder} has no protocol {beginning}; it has {marks or 'none'}")
    return found


def find_model(store: GenerationStore, reference: str) -> str:
    """The fingerprint of a model in the store, given by fingerprint (or its beginning), name or directory.

    Raises InputError when none or several fit.
    """
    known = store.described("models")
    path = str(Path(reference).resolve())
    for fits in (
        [mark for mark, facts in known.items() if facts.get("path") == path],
        [mark for mark, facts in known.items() if facts.get("name") == reference],
        [mark for mark in known if len(reference) >= 4 and mark.startswith(reference)],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise InputError(
                f"{reference} is {len(fits)} models in {store.folder}: {', '.join(fits)}; give a fingerprint"
            )
    names = ", ".join(f"{facts.get('name')} ({mark[:8]})" for mark, facts in known.items())
    raise InputError(f"{store.folder} has no samples of {reference}; it has {names or 'none'}")

"""Merges of Hugging Face checkpoints, streamed: memory of a few pieces of tensors, whatever the models' size.

linear   sum of w_m * m; with two models one weight w for the second, 1 - w for the first (the paper: 0.85)
task     base + sum of w_m * (m - base): task arithmetic (Ilharco et al. 2023)
slerp    along the great circle between two models, tensor by tensor (Shoemake 1985)

Every one of them is a weighted sum whose weights may differ by component. Sums run in fp64 and are rounded once.
"""

import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch

from prism_nemo.checkpoints.blend_kernel import add_scaled, round_into
from prism_nemo.checkpoints.components import GROUP_OF, GROUPS, Piece, canonical_tensors, pieces
from prism_nemo.checkpoints.hf_folder import DTYPES, NAMES, Entry, HfFolder, Planned, canonical, open_hf
from prism_nemo.checkpoints.safetensors_io import (
    PAGE,
    Opened,
    WrittenHashes,
    for_writing,
    lay_out,
    read_elements,
    write_elements,
)
from prism_nemo.errors import InputError, PrismError

METHODS = ("linear", "task", "slerp")
CHUNK = 1 << 20
"""Elements per job of a thread."""
STEP = 1 << 16
"""Elements summed at a time; what they need fits into the second-level cache."""
SYNC_EVERY = 128
"""Jobs after which what is written goes to the disk."""
PARALLEL_SINE = 1e-4
"""Below this sine two tensors have no plane between them: slerp becomes linear, as it does in the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What `--weight` says."""

    models: tuple[float, ...]
    """One per model after the first (task, or the first takes the rest), or one per model."""
    components: Mapping[str, float]
    """Group or component (`attention`, `mlp.gate`) -> the second model's weight there; two models only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    """A tensor of the merge: where it is read and where it goes."""

    name: str
    sources: tuple[Entry, ...]
    target: Planned

    @property
    def elements(self) -> int:
        return self.target.nbytes // self.target.dtype.itemsize


Coefficients = Callable[[Piece, Sequence[Entry]], Sequence[float]]
"""The weight of each model for one piece of a tensor."""


def parse_weights(texts: Sequence[str]) -> Weights:
    """`["0.85"]`, `["0.2", "0.3", "0.5"]`, `["0.85", "attention=0.8"]`. Raises InputError for anything else."""
    known = {*GROUPS, *GROUP_OF}
    models, components = [], {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if name and name not in known:
            raise InputError(f"--weight {text}: no component {name!r}; known: {', '.join(sorted(known))}")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"--weight {text}: {number!r} is no number") from None
        if not math.isfinite(value):
            raise InputError(f"--weight {text}: not finite")
        if name:
            components[name] = value
        else:
            models.append(value)
    return Weights(models=tuple(models), components=components)


def coefficients(method: str, weights: Weights, models: int, *, any_sum: bool = False) -> Coefficients:
    """The weighted sum that a method is. Raises InputError when weights and models do not fit together."""
    if method not in METHODS:
        raise InputError(f"no merge method {method!r}; known: {', '.join(METHODS)}")
    if models < 2:
        raise InputError("a merge needs at least two models")
    if weights.components and (models != 2 or (method == "task" and len(weights.models) > 1)):
        raise InputError(f"weights by component are for two models, not {models}")
    if method == "slerp" and (models != 2 or len(weights.models) > 1):
        raise InputError("slerp is between two models, with one weight")
    whole = _per_model(method, weights.models, models, any_sum=any_sum) if weights.models else None
    if whole is None and not weights.components:
        raise InputError("no --weight given; the paper's merge is --weight 0.85")

    def linear(piece: Piece, entries: Sequence[Entry]) -> Sequence[float]:
        share = weights.components.get(piece.component, weights.components.get(GROUP_OF[piece.component]))
        if share is not None:
            return (float(1 - Decimal(repr(share))), share)
        if whole is None:
            raise InputError(f"{piece.tensor} ({piece.component}) has no weight; add --weight NUMBER for all others")
        return whole

    if method != "slerp":
        return linear
    return lambda piece, entries: _slerp(piece, entries, linear(piece, entries)[1])


def _per_model(method: str, given: Sequence[float], models: int, *, any_sum: bool) -> tuple[float, ...]:
    """Weights of all models; task arithmetic and a left-out first weight give the first model the rest."""
    if len(given) == models - 1:
        return (float(1 - sum(Decimal(repr(weight)) for weight in given)), *given)  # 0.15 beside 0.85, not 0.15 + 2e-17
    if len(given) != models or method == "task":
        expected = f"{models - 1}" if method == "task" else f"{models - 1} or {models}"
        raise InputError(f"{len(given)} weights for {models} models; {method} takes {expected}")
    if not any_sum and abs(math.fsum(given) - 1) > 1e-6:
        raise InputError(
            f"weights {', '.join(map(str, given))} sum to {math.fsum(given):g}; --any-sum if that is meant"
        )
    return tuple(given)


def _slerp(piece: Piece, entries: Sequence[Entry], weight: float) -> tuple[float, float]:
    dot = first = second = 0.0
    for begin in range(piece.begin, piece.end, CHUNK):
        end = min(begin + CHUNK, piece.end)
        a, b = (_values(entry, begin, end) for entry in entries)
        dot, first, second = dot + float(a @ b), first + float(a @ a), second + float(b @ b)
    cosine = dot / math.sqrt(first * second) if first and second else 1.0
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    if math.sin(angle) < PARALLEL_SINE:
        return (1 - weight, weight)
    return math.sin((1 - weight) * angle) / math.sin(angle), math.sin(weight * angle) / math.sin(angle)


def _values(entry: Entry, begin: int, end: int) -> np.ndarray:
    return torch.from_numpy(read_elements(entry, begin, end)).view(entry.dtype).double().numpy()


def blend(
    folders: Sequence[HfFolder],
    out: Path,
    weigh: Coefficients,
    *,
    dtype: str | None = None,
    threads: int | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> dict[Path, str]:
    """Write the weights of a merge into `out` (an existing folder); returns the files' hashes (xxh3_128).

    A tied head is written once, as the embedding. Names are the first model's. `dtype` (BF16, F16, F32): of the output;
    default that of the inputs, which must then agree.
    Raises InputError for tensors that do not fit together or are not finite, PrismError for a sum that overflows.
    """
    tensors = _match(folders, dtype)
    places = lay_out(out, [tensor.target for tensor in tensors], max_shard_bytes=max_shard_bytes)
    threads = threads or min(len(os.sched_getaffinity(0)), 8)
    with Opened() as opened, ThreadPoolExecutor(2 * threads) as pool:  # half of them wait for the disk
        try:
            return _blend_all(_jobs(tensors, places, weigh), opened, pool, ahead=8 * threads)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _blend_all(jobs: Iterator["_Job"], opened: Opened, pool: ThreadPoolExecutor, *, ahead: int) -> dict[Path, str]:
    """Until all is on the disk, which begins while sums are still made; hashes what was written, in its order."""
    hashes, pending = WrittenHashes(), deque[Future[tuple[Entry, int, np.ndarray]]]()
    syncing = pool.submit(opened.sync)
    for number, job in enumerate(jobs, 1):
        if len(pending) == ahead:  # so many results are held at most
            hashes.add(*pending.popleft().result())
        pending.append(pool.submit(_blend_chunk, *job, opened))
        if number % SYNC_EVERY == 0:
            syncing.result()
            syncing = pool.submit(opened.sync)
    while pending:
        hashes.add(*pending.popleft().result())
    syncing.result()
    opened.sync()
    return hashes.by_file()


_Job = tuple[_Tensor, Entry, Sequence[float], int, int]


def _jobs(tensors: Sequence[_Tensor], places: Mapping[str, Entry], weigh: Coefficients) -> Iterator[_Job]:
    for tensor in tensors:
        for piece in pieces(tensor.name, tensor.target.shape, tensor.elements):
            weights = weigh(piece, tensor.sources)
            place = places[tensor.target.name]
            for begin, end in _chunks(place, piece):
                yield tensor, place, weights, begin, end


def _chunks(place: Entry, piece: Piece) -> Iterator[tuple[int, int]]:
    """All but the first begin with a page of the file, where elements do."""
    size = place.dtype.itemsize
    first = piece.begin + -(place.offset + piece.begin * size) % PAGE // size
    cuts = [piece.begin, *range(first + CHUNK, piece.end, CHUNK), piece.end]
    return itertools.pairwise(cuts)


def _blend_chunk(
    tensor: _Tensor, place: Entry, weights: Sequence[float], begin: int, end: int, opened: Opened
) -> tuple[Entry, int, np.ndarray]:
    """Write a chunk; returns where, and its bytes."""
    result = for_writing(_MEMORY.target, place, begin, end - begin)
    size = place.dtype.itemsize
    for start in range(begin, end, STEP):
        stop = min(start + STEP, end)
        _blend_step(tensor, weights, start, stop, result[(start - begin) * size : (stop - begin) * size], opened)
    write_elements(place, begin, result, opened)
    return place, begin, result.copy()


class _Memory(threading.local):
    """A thread's own, used for every step: fresh pages cost more than the sums."""

    def __init__(self) -> None:
        self.sums = np.empty(STEP)
        self.source = np.empty(STEP * 8, dtype=np.uint8)
        self.target = np.empty((CHUNK + PAGE) * 8 + PAGE, dtype=np.uint8)


_MEMORY = _Memory()


def _blend_step(
    tensor: _Tensor, weights: Sequence[float], begin: int, end: int, result: np.ndarray, opened: Opened
) -> None:
    count = end - begin
    total = _MEMORY.sums[:count]
    total.fill(0)
    for entry, weight in zip(tensor.sources, weights, strict=True):
        raw = read_elements(entry, begin, end, _MEMORY.source[: count * entry.dtype.itemsize], opened)
        if not add_scaled(raw, entry.dtype, weight, total):
            raise InputError(
                f"{entry.name} in {entry.file} holds inf or NaN; a merge would spread it: repair that model"
            )
    dtype = tensor.target.dtype
    if not round_into(total, dtype, result):
        raise PrismError(f"{tensor.name} overflows {NAMES[dtype]} in the merge; use smaller weights")


def refuse_dtype(dtype: str | None) -> None:
    """Raise InputError for an output dtype that is neither left out nor known."""
    if dtype is not None and dtype not in ("BF16", "F16", "F32"):
        raise InputError(f"--dtype {dtype}: one of BF16, F16, F32")


def _match(folders: Sequence[HfFolder], dtype: str | None) -> list[_Tensor]:
    refuse_dtype(dtype)
    found = [canonical_tensors(folder) for folder in folders]
    _refuse_other_names(found, folders)
    return [_tensor(name, [entries[name] for entries in found], dtype) for name in found[0]]


def _refuse_other_names(found: Sequence[Mapping[str, Entry]], folders: Sequence[HfFolder]) -> None:
    for entries, folder in zip(found[1:], folders[1:], strict=True):
        for have, lack, where in ((found[0], entries, folder), (entries, found[0], folders[0])):
            missing = [name for name in have if name not in lack]
            if missing:
                raise InputError(f"{where.path} lacks {', '.join(missing[:3])}; only models of one architecture merge")


def _tensor(name: str, sources: Sequence[Entry], dtype: str | None) -> _Tensor:
    first = sources[0]
    for entry in sources:
        if entry.shape != first.shape:
            what = "another vocabulary" if "embed" in name or "lm_head" in name else "another shape"
            raise InputError(
                f"{name} has {what} in {entry.file} {list(entry.shape)} than in {first.file} {list(first.shape)}"
            )
        if NAMES[entry.dtype] not in ("BF16", "F16", "F32", "F64"):
            raise InputError(f"{name} in {entry.file} is {NAMES[entry.dtype]}: no floating-point weight")
        if dtype is None and entry.dtype != first.dtype:
            raise InputError(
                f"{name} is {NAMES[entry.dtype]} in {entry.file} and {NAMES[first.dtype]} in {first.file}; "
                f"--dtype {NAMES[first.dtype]} says what to write"
            )
    target = Planned(name=canonical(first.name), dtype=DTYPES[dtype] if dtype else first.dtype, shape=first.shape)
    return _Tensor(name=name, sources=tuple(sources), target=target)


def open_models(paths: Sequence[Path], dtype: str | None = None) -> list[HfFolder]:
    """The models of a merge into `dtype`, their tensors checked against each other. Raises InputError as `blend`."""
    folders = [open_hf(Path(path)) for path in paths]
    _match(folders, dtype)
    return folders

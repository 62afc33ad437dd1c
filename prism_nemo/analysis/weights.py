"""What training did to the weights: two or three checkpoints compared in one pass over their shards.

Definitions: paper section 10.1, appendix 18 (weight divergence, sparsity) and equation 2 (cosine of updates). The paper
does not say how it aggregates over tensors, so every average is named for what it is.
"""

import dataclasses
import fnmatch
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prism_nemo.analysis.bf16_kernel import count_bf16
from prism_nemo.analysis.pair_kernel import BITS, count_pair, count_triple, limits, ulp_edges, widen_bf16
from prism_nemo.analysis.tally import Change, Common, PairTally, TripleTally, change, common
from prism_nemo.analysis.window import mapped
from prism_nemo.checkpoints.components import GROUP_OF, Piece, canonical_tensors, pieces
from prism_nemo.checkpoints.hf_folder import DTYPES, NAMES, Entry, HfFolder, open_hf
from prism_nemo.checkpoints.safetensors_io import read_elements
from prism_nemo.errors import InputError

CHUNK = 1 << 24
"""Elements per job of a thread."""
STEP = 1 << 16
"""Elements counted at a time; what they need fits into the second-level cache."""
POINTS = ("a", "b", "c")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReport:
    """Everything `compare_weights` measured. Shares are fractions of the compared (finite) elements."""

    labels: tuple[str, ...]
    """What the points are called: two or three."""
    paths: tuple[str, ...]
    elements: int
    """Per checkpoint, tied heads once, ignored tensors not counted."""
    dtypes: Mapping[str, int]
    """Dtype in which elements were compared -> how many elements."""
    changes: Sequence[Change]
    """One per transition and scope (total, group, component, layer, cell, tensor); see `Change`."""
    common: Sequence[Common]
    """What two updates have in common, per scope; empty with two points."""
    notes: Sequence[str] = field(default_factory=tuple)
    """What a reader must know: ignored and non-finite elements, mixed dtypes, how coarse the dtype is."""

    def find(self, transition: str, scope: str, name: str = "") -> Change:
        """One row; `transition` such as `base -> mt`. Raises KeyError when there is none."""
        for row in self.changes:
            if (row.transition, row.scope, row.name) == (transition, scope, name):
                return row
        raise KeyError((transition, scope, name))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One tensor at all points."""

    name: str
    infos: tuple[Entry, ...]
    dtype: str
    """The widest of the points'."""

    @property
    def elements(self) -> int:
        return self.infos[0].nbytes // self.infos[0].dtype.itemsize


def compare_weights(
    a: Path,
    b: Path,
    c: Path | None = None,
    *,
    labels: Sequence[str] = POINTS,
    ignore: Sequence[str] = (),
    threads: int | None = None,
) -> WeightReport:
    """Compare two or three Hugging Face directories, streamed: memory of a few chunks whatever the model's size.

    With three points all three transitions (a -> b, b -> c, a -> c) are measured, and the cosines of b-a with c-b
    (one after the other, such as MT and RL) and with c-a (from a common origin, such as two mixtures).
    `ignore`: glob patterns of tensor names to leave out. `threads`: default one per core, at most 8.
    Raises InputError for damaged shards, other shapes and tensors that not every point has.
    """
    folders = [folder for folder in (a, b, c) if folder is not None]
    checkpoints = [open_hf(Path(folder)) for folder in folders]
    work, notes = _plan(checkpoints, ignore)
    labels = tuple(labels[: len(folders)])
    measured = list(_measure_all(work, threads or min(os.cpu_count() or 1, 8)))
    changes = [row for pair in _transitions(len(folders)) for row in _changes(measured, labels, pair)]
    return WeightReport(
        labels=labels,
        paths=tuple(str(folder) for folder in folders),
        elements=sum(item.elements for item in work),
        dtypes=_dtypes(work),
        changes=changes,
        common=_commons(measured) if len(folders) == 3 else [],
        notes=[*notes, *reading_notes(changes, _dtypes(work))],
    )


def _plan(checkpoints: Sequence[HfFolder], ignore: Sequence[str]) -> tuple[list[_Work], list[str]]:
    found = [canonical_tensors(checkpoint) for checkpoint in checkpoints]
    ignored = _ignored(set().union(*found), ignore)
    for tensors in found:
        for name in ignored:
            tensors.pop(name, None)
    _refuse_missing(found, checkpoints)
    matched = {name: [tensors[name] for tensors in found] for name in found[0]}
    others = [name for name, infos in matched.items() if not any(NAMES[info.dtype] in BITS for info in infos)]
    work = [_match(name, infos) for name, infos in matched.items() if name not in others]
    if not work:
        patterns = ", ".join(f"'{glob}'" for glob in ignore)
        why = f": --ignore {patterns} leaves all tensors out" if ignored else f" in {checkpoints[0].path}"
        raise InputError(f"nothing is left to compare{why}")
    mixed = [item.name for item in work if len({info.dtype for info in item.infos}) > 1]
    notes = [f"not compared, ignored by pattern: {_some(ignored)}"] if ignored else []
    notes += [f"not compared, of other dtypes than {', '.join(reversed(BITS))}: {_some(others)}"] if others else []
    notes += [f"of mixed dtypes, compared in the wider one: {_some(mixed)}"] if mixed else []
    return work, notes


def _ignored(names: Iterable[str], ignore: Sequence[str]) -> list[str]:
    fits = {glob: fnmatch.filter(names, glob) for glob in ignore}
    idle = [glob for glob, found in fits.items() if not found]
    if idle:
        raise InputError(f"--ignore '{idle[0]}' fits no tensor; patterns are for whole names, such as '*.q_proj.*'")
    return sorted({name for found in fits.values() for name in found})


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _refuse_missing(found: Sequence[Mapping[str, Entry]], checkpoints: Sequence[HfFolder]) -> None:
    for tensors, checkpoint in zip(found[1:], checkpoints[1:], strict=True):
        for have, lack, where in ((found[0], tensors, checkpoint), (tensors, found[0], checkpoints[0])):
            missing = [name for name in have if name not in lack]
            if missing:
                raise InputError(
                    f"{where.path} lacks {_some(missing)}; compare checkpoints of one model, "
                    f"or leave tensors out with --ignore '{missing[0]}'"
                )


def _match(name: str, infos: Sequence[Entry]) -> _Work:
    for info in infos[1:]:
        if info.shape != infos[0].shape:
            raise InputError(
                f"{name} has shape {list(infos[0].shape)} in {infos[0].file} and {list(info.shape)} in {info.file}; "
                f"leave it out with --ignore '{name}'"
            )
        if (NAMES[info.dtype] in BITS) != (NAMES[infos[0].dtype] in BITS):
            places = " and ".join(f"{NAMES[each.dtype]} in {each.file}" for each in (infos[0], info))
            raise InputError(
                f"{name} has dtype {places}, which cannot be compared; leave it out with --ignore '{name}'"
            )
    dtypes = {NAMES[info.dtype] for info in infos}
    widest = dtypes.pop() if len(dtypes) == 1 else ("F64" if "F64" in dtypes else "F32")
    return _Work(name=name, infos=tuple(infos), dtype=widest)


def _measure_all(work: Iterable[_Work], threads: int) -> Iterator["Measured"]:
    """Chunks run on several threads; their results are added in a fixed order, so sums do not depend on timing."""
    jobs = [(item, piece) for item in work for piece in pieces(item.name, item.infos[0].shape, item.elements)]
    with ThreadPoolExecutor(threads) as pool:
        pending: list[tuple[_Work, Piece, list[Any]]] = []
        for item, piece in jobs:
            starts = range(piece.begin, max(piece.end, piece.begin + 1), CHUNK)
            futures = [pool.submit(_chunk, item, start, min(start + CHUNK, piece.end)) for start in starts]
            pending.append((item, piece, futures))
        for item, piece, futures in pending:
            yield _collect(item, piece, [future.result() for future in futures])


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One piece of a tensor, counted."""

    piece: Piece
    dtype: str
    pairs: Mapping[tuple[int, int], PairTally]
    triple: TripleTally | None


def _collect(item: _Work, piece: Piece, chunks: Sequence[tuple[dict[tuple[int, int], PairTally], Any]]) -> Measured:
    pairs = {pair: PairTally.total(chunk[0][pair] for chunk in chunks) for pair in chunks[0][0]}
    triple = TripleTally.total(chunk[1] for chunk in chunks) if chunks[0][1] is not None else None
    return Measured(piece=piece, dtype=item.dtype, pairs=pairs, triple=triple)


def _transitions(points: int) -> list[tuple[int, int]]:
    return [(0, 1)] if points == 2 else [(0, 1), (1, 2), (0, 2)]


def _chunk(item: _Work, begin: int, end: int) -> tuple[dict[tuple[int, int], PairTally], TripleTally | None]:
    edges, bounds = ulp_edges(item.dtype), limits(item.dtype)
    pairs = {pair: PairTally.empty(item.dtype, end - begin) for pair in _transitions(len(item.infos))}
    triple = TripleTally.empty(end - begin) if len(item.infos) == 3 else None
    for read in _steps(item, begin, end):
        needless = item.dtype == "BF16" and triple is None
        values = [] if needless else [_values(item.dtype, slot, bits) for slot, bits in enumerate(read)]
        for (i, j), tally in pairs.items():
            if item.dtype == "BF16":
                count_bf16(read[i], read[j], bounds, edges, tally.counts, tally.sums)
            else:
                count_pair(read[i], read[j], values[i], values[j], bounds, edges, tally.counts, tally.sums)
        if triple is not None:
            (p, q, r), (x, y, z) = read, values
            count_triple(p, q, r, x, y, z, bounds, triple.counts, triple.sums)
    return pairs, triple


def _steps(item: _Work, begin: int, end: int) -> Iterator[list[np.ndarray]]:
    """Bit patterns of all points, STEP elements at a time: mapped where the file has them as they are, else read."""
    same = [info.dtype == DTYPES[item.dtype] for info in item.infos]
    windows = [mapped(info, begin, end) if fits else None for info, fits in zip(item.infos, same, strict=True)]
    at_once = item.dtype == "BF16" and len(windows) == 2 and all(window is not None for window in windows)
    step = CHUNK if at_once else STEP  # that kernel needs no memory besides
    for start in range(begin, end, step):
        stop = min(start + step, end)
        yield [
            _read(info, item.dtype, start, stop, slot)
            if window is None
            else window[(start - begin) * info.dtype.itemsize : (stop - begin) * info.dtype.itemsize].view(
                BITS[item.dtype]
            )
            for slot, (info, window) in enumerate(zip(item.infos, windows, strict=True))
        ]


_MEMORY = threading.local()


def _scratch(slot: int, kind: str, size: int, dtype: type) -> np.ndarray:
    """Memory of this thread that is used again: fresh pages cost more than the counting."""
    held: dict[Any, Any] = _MEMORY.__dict__
    if (slot, kind) not in held:
        held[slot, kind] = np.empty(8 * STEP, np.uint8)
    return held[slot, kind][: size * np.dtype(dtype).itemsize].view(dtype)


def _read(info: Entry, dtype: str, begin: int, end: int, slot: int) -> np.ndarray:
    """Bit patterns in `dtype`, in the thread's memory for the point number `slot`, until the next call."""
    raw = read_elements(info, begin, end, _scratch(slot, "raw", (end - begin) * info.dtype.itemsize, np.uint8))
    if info.dtype != DTYPES[dtype]:
        raw = torch.from_numpy(raw).view(info.dtype).to(DTYPES[dtype]).view(torch.uint8).numpy()
    raw.flags.writeable = False  # as mapped memory: one compiled kernel for both
    return raw.view(BITS[dtype])


def _values(dtype: str, slot: int, bits: np.ndarray) -> np.ndarray:
    """float32 for 16-bit formats, float64 for the others."""
    if dtype == "BF16":
        return widen_bf16(bits, _scratch(slot, "wide", bits.size, np.uint32))
    if dtype == "F16":
        return bits.view(np.float16).astype(np.float32)
    return bits.view(np.float32).astype(np.float64) if dtype == "F32" else bits.view(np.float64)


def _dtypes(work: Sequence[_Work]) -> dict[str, int]:
    return {
        dtype: sum(item.elements for item in work if item.dtype == dtype)
        for dtype in sorted({item.dtype for item in work})
    }


def _scopes(measured: Sequence[Measured]) -> Iterator[tuple[str, str, list[Measured]]]:
    """(scope, name, members): the total first, single tensors last."""
    yield "total", "", list(measured)
    for scope in ("group", "component", "layer", "cell", "tensor"):
        members: dict[str, list[Measured]] = {}
        for item in measured:
            for name in _scope_name(scope, item.piece):
                members.setdefault(name, []).append(item)
        for name, items in members.items():
            yield scope, name, items


def _scope_name(scope: str, piece: Piece) -> list[str]:
    if scope == "group":
        return [GROUP_OF[piece.component]]
    if scope == "component":
        return [piece.component]
    if scope in ("layer", "cell"):
        name = str(piece.layer) if scope == "layer" else f"{piece.layer} {piece.component}"
        return [] if piece.layer is None else [name]
    half = f" [{piece.component}]" if piece.tensor.endswith(("input_linear.weight", "input_linear.bias")) else ""
    return [piece.tensor + half]


def _changes(measured: Sequence[Measured], labels: Sequence[str], pair: tuple[int, int]) -> Iterator[Change]:
    transition = f"{labels[pair[0]]} -> {labels[pair[1]]}"
    for scope, name, items in _scopes(measured):
        yield change(transition, scope, name, [(item.dtype, item.pairs[pair]) for item in items])


def _commons(measured: Sequence[Measured]) -> list[Common]:
    found = []
    for scope, name, items in _scopes(measured):
        found.append(common(scope, name, [item.triple for item in items if item.triple is not None]))
    return found


def reading_notes(changes: Sequence[Change], dtypes: Mapping[str, int]) -> list[str]:
    """How coarse the dtype is, elements left out, tensors without a norm; what transitions share is said once."""
    notes = []
    if "BF16" in dtypes:
        notes.append(
            "bf16 neighbours differ by 0.39 to 0.78 %: '0.1 %' is exact equality and '1 %' calls every one-ulp move "
            "unchanged; read the ulp histogram beside the shares"
        )
    remarks: dict[str, list[str]] = {}
    for row in (row for row in changes if row.scope == "total"):
        if row.elements != row.compared:
            left_out = f"{row.elements - row.compared} elements are inf or NaN at one end, left out"
            remarks.setdefault(left_out, []).append(row.transition)
        if row.zero_norm_tensors:
            zeros = f"{row.zero_norm_tensors} tensors are all zeros at the start: no relative L2"
            remarks.setdefault(zeros, []).append(row.transition)
    return notes + [f"{_some(list(dict.fromkeys(places)))}: {remark}" for remark, places in remarks.items()]

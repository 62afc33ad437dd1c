"""From shards to the finished files: SPLIT/SOURCE.bin and .idx, quarantine/ and contaminated.jsonl.

Documents keep the order of files and rows; for the same documents the bytes are those of Megatron-LM's
`preprocess_data.py --append-eod`.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from prism_nemo.data.files import Unit
from prism_nemo.data.indexed import write_index
from prism_nemo.data.select import SPLITS
from prism_nemo.data.shard import CLEAN, RECORD, Receipt, read_receipt

CHUNK_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A finished shard."""

    unit: Unit
    folder: Path
    low: int
    """Lower end of its stretch of the random draw; the receipt of the stretch from 0 counts the unit's rows."""

    def records(self) -> np.ndarray:
        return np.fromfile(self.folder / "records.bin", RECORD)

    def receipt(self) -> Receipt:
        return read_receipt(self.folder)


def write_split(
    folder: Path, split: str, name: str, shards: Sequence[tuple[Shard, np.ndarray]], dtype: np.dtype
) -> tuple[int, int]:
    """Write one source's files of a split; `shards` come with the fate of each record. Returns documents and tokens.

    Writes nothing and returns (0, 0) when the split has no document.
    """
    number = SPLITS.index(split)
    if not any((fate == number).any() for _, fate in shards):
        return 0, 0
    (folder / split).mkdir(exist_ok=True)
    lengths = []
    with open(folder / split / f"{name}.bin", "wb") as out:
        for shard, fate in shards:
            records = shard.records()
            clean = records["state"] == CLEAN
            chosen = fate[clean] == number
            tokens = records["tokens"][clean]
            _copy(shard.folder / "ids.bin", tokens, chosen, dtype, out)
            lengths.append(tokens[chosen])
    every = np.concatenate(lengths)
    write_index(folder / split / f"{name}.idx", every, dtype)
    return len(every), int(every.sum(dtype=np.int64))


def _copy(path: Path, lengths: np.ndarray, chosen: np.ndarray, dtype: np.dtype, out: BinaryIO) -> None:
    """Append the chosen documents of a shard, a bounded number of tokens at a time."""
    if not chosen.any():
        return
    ends = np.cumsum(lengths, dtype=np.int64)
    every = np.memmap(path, dtype, mode="r")  # a third of the time of reading into fresh memory
    first = 0
    while first < len(lengths):
        start = int(ends[first] - lengths[first])
        last = max(int(np.searchsorted(ends, start + CHUNK_TOKENS, side="right")), first + 1)
        if chosen[first:last].any():
            count = int(ends[last - 1]) - start
            ids = every[start : start + count]
            mask = chosen[first:last]
            out.write(ids if mask.all() else ids[np.repeat(mask, lengths[first:last])])
        first = last


def write_log(folder: Path, kind: str, name: str, shards: Sequence[Shard]) -> None:
    """Collect `quarantine.jsonl` or `contaminated.jsonl` of a source's shards, with line numbers of the whole file."""
    entries = _entries(kind, shards)
    first = next(entries, None)
    if first is None:
        return
    (folder / kind).mkdir(exist_ok=True)
    with open(folder / kind / f"{name}.jsonl", "wb") as out:
        for entry in itertools.chain((first,), entries):
            out.write(orjson.dumps(entry) + b"\n")


def _entries(kind: str, shards: Sequence[Shard]) -> Iterator[dict[str, Any]]:
    for shard, before in zip(shards, _lines_before(shards), strict=True):
        with open(shard.folder / f"{kind}.jsonl", "rb") as lines:
            for line in lines:
                entry = orjson.loads(line)
                entry["line"] += before + 1
                yield entry


def _lines_before(shards: Sequence[Shard]) -> list[int]:
    """Lines of the same file that stand before each shard's unit; 0 but for the later byte ranges of a jsonl file."""
    before: dict[tuple[str, tuple[str, ...], int], int] = {}
    total: dict[tuple[str, tuple[str, ...]], int] = {}
    found = []
    for shard in shards:  # stretches of a file come in order, each one's first pass before its others
        unit = shard.unit
        file, place = (unit.root, unit.names), (unit.root, unit.names, unit.start)
        if place not in before:
            before[place] = total.get(file, 0)
            total[file] = before[place] + shard.receipt().rows
        found.append(before[place] if unit.kind == "jsonl" else 0)
    return found

"""Decontamination: documents that hold a run of words of a benchmark item.

Every run of n words (13 by default, the rule of the GPT-3 paper, appendix C) of the normalized item is looked up in the
normalized document. Hits of the first hash are confirmed by a second, independent one of the words themselves.
"""

import array
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from prism_nemo.artifacts import fingerprint
from prism_nemo.data.benchmarks import Benchmarks, Item, load_benchmarks
from prism_nemo.data.words import Windows, normalize, windows

PIECE = 4 << 20
OVERLAP = 1 << 16
FORMAT = 3
MOST_BITS = 26
CHUNK = 1 << 16
COLUMNS = ("hashes", "checks", "items", "bits")


@dataclass(frozen=True, slots=True)
class Table:
    """Runs of one length, sorted by their hash."""

    length: int
    """Words."""
    hashes: np.ndarray
    checks: np.ndarray
    """xxh3_64 of the words, joined by single blanks."""
    items: np.ndarray
    """Index of the item; of several items with the same run, the first is found."""
    bits: np.ndarray
    """A filter before the search: one bit for every value of a hash's first bits, set when there is such a hash."""


class Screen:
    """Finds benchmark items in documents."""

    def __init__(self, tables: Sequence[Table], items: Sequence[tuple[str, str]]) -> None:
        self.tables, self.items = tables, items

    def find(self, documents: Sequence[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(index, {"hits": [...]}) for every document (UTF-8) that holds a run of words of an item."""
        for numbers, text, bounds in _joined(documents):
            found = windows(text)
            hits: dict[int, dict[int, list[tuple[int, int]]]] = {}
            for table in self.tables:
                for place, item in _matches(table, text, found):
                    local, last = np.searchsorted(bounds, found.begin[[place, place + table.length - 1]], "right") - 1
                    if local == last:
                        hits.setdefault(int(local), {}).setdefault(item, []).append((place, table.length))
            for local in sorted(hits):
                first = int(np.searchsorted(found.begin, bounds[local]))
                yield numbers[local], {"hits": self._described(hits[local], first, found.begin, text)}

    def _described(
        self, hits: dict[int, list[tuple[int, int]]], first: int, begin: np.ndarray, text: bytes
    ) -> list[dict[str, Any]]:
        found = []
        for item, places in sorted(hits.items()):
            start = min(place for place, _ in places)
            end = max(place + length for place, length in places)
            benchmark, name = self.items[item]
            run = _run(text, begin, start, min(end - start, 40)).decode("utf-8", "replace")
            found.append({"benchmark": benchmark, "item": name, "words": [start - first, end - first], "text": run})
        return found


def _joined(documents: Sequence[bytes]) -> Iterator[tuple[list[int], bytes, np.ndarray]]:
    """Normalized documents put together to texts of bounded size: their indices, the text, and where each begins."""
    numbers: list[int] = []
    pieces: list[bytes] = []
    size = 0
    for number, document in enumerate(documents):
        for piece in _split(normalize(document)):
            if pieces and size + len(piece) > PIECE:
                yield numbers, b" ".join(pieces), _begins(pieces)
                numbers, pieces, size = [], [], 0
            numbers.append(number)
            pieces.append(piece)
            size += len(piece) + 1
    if pieces:
        yield numbers, b" ".join(pieces), _begins(pieces)


def _split(text: bytes) -> Iterator[bytes]:
    """A very long text in overlapping pieces that begin and end between words."""
    start = 0
    while len(text) - start > PIECE:
        end = max(text.rfind(b" ", start, start + PIECE), start + PIECE // 2)
        yield text[start:end]
        start = max(text.rfind(b" ", start, end - OVERLAP), start + 1)
    yield text[start:]


def _begins(pieces: Sequence[bytes]) -> np.ndarray:
    lengths = [len(piece) + 1 for piece in pieces[:-1]]
    return np.cumsum([0, *lengths])


def _run(text: bytes, begin: np.ndarray, place: int, length: int) -> bytes:
    """The words place .. place + length - 1, joined by single blanks."""
    after = place + length
    stop = int(begin[after]) if after < len(begin) else len(text)
    return b" ".join(text[int(begin[place]) : stop].split())


def _check(run: bytes) -> int:
    return xxhash.xxh3_64_intdigest(run, seed=1)


def _matches(table: Table, text: bytes, found: Windows) -> Iterator[tuple[int, int]]:
    """(word index, item index) of every confirmed run."""
    hashes = found.hashes(table.length)
    byte, bit = _place(hashes, len(table.bits))
    maybe = np.flatnonzero((table.bits[byte] >> bit) & 1)
    row = np.minimum(np.searchsorted(table.hashes, hashes[maybe]), len(table.hashes) - 1)
    same = table.hashes[row] == hashes[maybe]
    for place, entry in zip(maybe[same].tolist(), row[same].tolist(), strict=True):
        if _check(_run(text, found.begin, place, table.length)) == table.checks[entry]:
            yield place, int(table.items[entry])


def _filter(hashes: np.ndarray) -> np.ndarray:
    """64 places for each hash, 2^26 (8 MiB) at most."""
    bits = np.zeros((1 << min(max((len(hashes) * 64).bit_length(), 16), MOST_BITS)) // 8, np.uint8)
    for start in range(0, len(hashes), CHUNK):
        byte, bit = _place(hashes[start : start + CHUNK], len(bits))
        np.bitwise_or.at(bits, byte, np.uint8(1) << bit)
    return bits


def _place(hashes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The byte of a filter of `size` bytes, and the bit in it, that stand for each hash."""
    first = (hashes >> np.uint64(62 - size.bit_length())).astype(np.int64)
    return first >> 3, (first & 7).astype(np.uint8)


def index_items(items: Sequence[Item], n: int, shortest: int) -> tuple[list[Table], int]:
    """Tables of all runs of `n` words (a shorter item is one run), and how many items are below `shortest`."""
    runs: dict[int, list[array.array]] = {}  # millions of numbers: arrays of them, not lists
    too_short = 0
    for number, item in enumerate(items):
        text = normalize(item.text.encode("utf-8", "replace"))
        found = windows(text)
        length = min(n, len(found.begin))
        if length < shortest:
            too_short += 1
            continue
        hashes = found.hashes(length)
        own = runs.setdefault(length, [array.array("Q"), array.array("Q"), array.array("i")])
        own[0].frombytes(hashes.tobytes())
        own[1].extend(_check(_run(text, found.begin, place, length)) for place in range(len(hashes)))
        own[2].extend([number] * len(hashes))
    return [_table(length, runs[length]) for length in sorted(runs)], too_short


def _table(length: int, columns: list[array.array]) -> Table:
    """Empties `columns` (hashes, checks, items) on its way, so that little of them is in memory twice."""
    # Of equal runs the first item's stays first.
    order = np.argsort(np.frombuffer(columns[0], np.uint64), kind="stable")
    kinds = (np.uint64, np.uint64, np.int32)
    hashes, checks, items = (np.frombuffer(columns.pop(0), kind)[order] for kind in kinds)
    return Table(length, hashes, checks, items, _filter(hashes))


def _mark(lists: Benchmarks, items: Sequence[Item]) -> str:
    return fingerprint({"format": FORMAT, "ngram": lists.ngram, "shortest": lists.shortest, "items": items})


def screen_fingerprint(name_or_path: str) -> str:
    """The fingerprint of a list's index, as `build_screen` gives it: of its items and lengths, not its name."""
    lists = load_benchmarks(name_or_path)
    return _mark(lists, lists.items())


def build_screen(
    name_or_path: str | None, work: Path, local: Mapping[str, Path] | None = None
) -> tuple[Path | None, str]:
    """The folder, below `work`, and the fingerprint of a benchmark list's index; (None, "") without a list."""
    if name_or_path is None:
        return None, ""
    lists = load_benchmarks(name_or_path, local or {})
    items = lists.items()
    mark = _mark(lists, items)
    folder = work / "screen" / mark
    if not (folder / "items.json").is_file():
        tables, too_short = index_items(items, lists.ngram, lists.shortest)
        folder.mkdir(parents=True, exist_ok=True)
        names = {
            "too_short": too_short,
            "lengths": [table.length for table in tables],
            "items": [[item.benchmark, item.name] for item in items],
        }
        with tempfile.TemporaryDirectory(dir=folder) as own:  # several jobs may build the same index at once
            for table in tables:
                for column in COLUMNS:
                    np.save(Path(own) / f"{column}_{table.length}.npy", getattr(table, column))
            (Path(own) / "items.json").write_text(json.dumps(names))
            for path in sorted(Path(own).iterdir(), key=lambda path: path.suffix == ".json"):  # the list comes last
                path.replace(folder / path.name)
    return folder, mark


def load_screen(folder: Path) -> Screen:
    """The screen that `build_screen` wrote. Its tables are memory mapped: all workers of a machine share them."""
    names = json.loads((folder / "items.json").read_text())
    tables = [Table(length, *(_column(folder, name, length) for name in COLUMNS)) for length in names["lengths"]]
    return Screen(tables, [(benchmark, item) for benchmark, item in names["items"]])


def _column(folder: Path, name: str, length: int) -> np.ndarray:
    return np.asarray(np.load(folder / f"{name}_{length}.npy", mmap_mode="r", allow_pickle=False))

"""The generation store: every sampled completion, append-only, shared by processes and machines without locks.

    logs/<host>-<id>.jsonl        one per living writer: a line per sample, appended with one write
    segments/<host>-<id>.parquet  sealed logs: immutable, read with pandas, DuckDB or pyarrow
    protocols/, models/           readable JSON of what the keys stand for

Why not one SQLite file: it needs locks, and its write-ahead log shared memory, which cluster file systems do not give
reliably. Here no file ever has two writers, so there is nothing to lock; a reader takes whole lines only. A log is
sealed by its writer, or, after a kill, by the next process on the same host (the kernel's lock on the log says that
its writer is gone). A torn last line is dropped then. A sample written twice is read once: the key is unique.
"""

import contextlib
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from prism_nemo.errors import InputError
from prism_nemo.evaluation.sample import KEYS, SCHEMA, VALUES, Sample, SampleKey, from_record

FORMAT = 1
SEAL_BYTES = 256 << 20
"""A log beyond this is sealed into a segment and a new one begun."""
GROUP_ROWS = 128
"""Rows per Parquet row group: what has to be decoded to read one text."""
SYNC_SECONDS = 1.0
"""Flush to the disk at most this often; a killed process loses nothing that was appended, a dead machine this much."""


class GenerationStore:
    """Samples by key. `append` is durable against kill -9; `refresh` sees what other processes wrote meanwhile."""

    def __init__(self, folder: Path | str) -> None:
        """Open or create; seals what killed writers of this host left. Raises InputError for another kind of folder."""
        self.folder = Path(folder)
        _check_format(self.folder)
        for name in ("logs", "segments", "protocols", "models"):
            (self.folder / name).mkdir(exist_ok=True)
        seal_dead_logs(self.folder)
        self._log: _Log | None = None
        self._load()

    def _load(self) -> None:
        self.unreadable_lines = 0
        self._index: dict[str, tuple[str, int]] = {}
        self._offsets: dict[str, int] = {}
        self._segments: set[str] = set()
        self._open_segment = lru_cache(maxsize=64)(self._read_segment)
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: SampleKey) -> bool:
        return key.digest in self._index

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def missing[Key: SampleKey](self, keys: Iterable[Key]) -> list[Key]:
        """The keys that have no sample yet, in the given order."""
        return [key for key in keys if key.digest not in self._index]

    def append(self, samples: Iterable[Sample]) -> int:
        """Write samples (one system call), skipping known keys; returns how many were new."""
        new = {sample.digest: sample for sample in samples if sample.digest not in self._index}
        if not new:
            return 0
        if self._log is None:
            self._log = _Log(self.folder / "logs")
        lines = [sample.to_line() for sample in new.values()]
        offset = self._log.write(b"".join(lines))
        for digest, line in zip(new, lines, strict=True):
            self._index[digest] = (self._log.name, offset)
            offset += len(line)
        self._offsets[self._log.name] = offset
        if offset > SEAL_BYTES:
            self._seal_own()
        return len(new)

    def get(self, key: SampleKey) -> Sample | None:
        """The sample of a key, or None."""
        if (place := self._index.get(key.digest)) is None:
            return None
        name, position = place
        if name in self._segments:
            return self._from_segment(key, name, position)
        try:
            with open(self.folder / "logs" / f"{name}.jsonl", "rb") as file:
                file.seek(position)
                return from_record(orjson.loads(file.readline()))
        except FileNotFoundError:  # its writer sealed it meanwhile
            self.refresh()
            return self.get(key)

    def samples(self, **where: str | int) -> list[Sample]:
        """All samples whose fields equal the given ones, e.g. `samples(model=..., task="aime24@1")`, each key once."""
        return [from_record(record) for record in self._records(SCHEMA.names, where)]

    def keys(self, **where: str | int) -> list[SampleKey]:
        """The keys of `samples(...)`; of segments no text is read."""
        records = self._records(["key", *KEYS], where)
        return [SampleKey(**{name: record[name] for name in KEYS}) for record in records]

    def _records(self, columns: Sequence[str], where: Mapping[str, str | int]) -> Iterable[dict[str, Any]]:
        self.refresh()
        found: dict[str, dict[str, Any]] = {}
        for name in sorted(self._offsets):
            with contextlib.suppress(FileNotFoundError):
                for record in read_lines((self.folder / "logs" / f"{name}.jsonl").read_bytes())[0]:
                    if all(record[field] == value for field, value in where.items()):
                        found.setdefault(record["key"], record)
        self._find_segments()
        filters = [(field, "=", value) for field, value in where.items()] or None
        for name in sorted(self._segments):
            table = pq.read_table(self._segment(name), schema=SCHEMA, columns=list(columns), filters=filters)
            for record in table.to_pylist():
                found.setdefault(record["key"], record)
        return found.values()

    def refresh(self) -> None:
        """Take in what other writers appended. Logs are read before segments are listed, so nothing falls between."""
        for path in sorted((self.folder / "logs").glob("*.jsonl")):
            with contextlib.suppress(FileNotFoundError):
                self._read_log(path)
        self._find_segments()

    def close(self) -> None:
        """Seal this process's log; the store stays usable."""
        if self._log is not None:
            self._seal_own()

    def describe(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        """Keep readable facts beside the samples: `kind` is "protocols" or "models", `name` the fingerprint."""
        path = self.folder / kind / f"{name}.json"
        text = orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        if not path.is_file() or path.read_bytes() != text:
            draft = path.with_name(f".{name}.{uuid.uuid4().hex[:8]}")
            draft.write_bytes(text)
            os.replace(draft, path)

    def described(self, kind: str) -> dict[str, dict[str, Any]]:
        """Fingerprint -> facts, for every model or protocol."""
        return {path.stem: orjson.loads(path.read_bytes()) for path in sorted((self.folder / kind).glob("[!.]*.json"))}

    def _segment(self, name: str) -> Path:
        return self.folder / "segments" / f"{name}.parquet"

    def _from_segment(self, key: SampleKey, name: str, position: int) -> Sample:
        file = self._open_segment(name)
        group, row = divmod(position, file.metadata.row_group(0).num_rows)
        (values,) = file.read_row_group(group, columns=VALUES, use_threads=False).slice(row, 1).to_pylist()
        return from_record(values | {field: getattr(key, field) for field in KEYS})

    def _read_segment(self, name: str) -> pq.ParquetFile:
        return pq.ParquetFile(self._segment(name))

    def _read_log(self, path: Path) -> None:
        offset = self._offsets.get(path.stem, 0)
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
        records, positions, unreadable = _parse(data)
        for record, position in zip(records, positions, strict=True):
            self._index.setdefault(record["key"], (path.stem, offset + position))
        self.unreadable_lines += unreadable
        self._offsets[path.stem] = offset + data.rfind(b"\n") + 1

    def _find_segments(self) -> None:
        for path in sorted((self.folder / "segments").glob("[!.]*.parquet")):
            if path.stem not in self._segments:
                keys = pq.read_table(path, columns=["key"])["key"].to_pylist()
                self._segments.add(path.stem)
                self._offsets.pop(path.stem, None)
                self._index.update({key: (path.stem, row) for row, key in enumerate(keys)})

    def _seal_own(self) -> None:
        assert self._log is not None
        log, self._log = self._log, None
        log.sync()
        seal(log.path)
        log.close()
        self._find_segments()


class _Log:
    """The one log this process writes; the kernel's lock on it says that the writer lives."""

    def __init__(self, folder: Path) -> None:
        self.name = _new_name()
        self.path = folder / f"{self.name}.jsonl"
        # Made and locked under another name, so that nobody finds it without its lock.
        hidden = folder / f".{self.name}"
        self._file: BinaryIO = open(hidden, "ab", buffering=0)  # noqa: SIM115
        with contextlib.suppress(OSError):  # a file system without locks: then nobody else seals it either
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(hidden, self.path)
        self._size = 0
        self._synced = 0.0

    def write(self, data: bytes) -> int:
        """Append; returns the offset of the first byte."""
        start, view = self._size, memoryview(data)
        while view:  # one call, unless a signal or a full disk cuts it short
            view = view[self._file.write(view) :]
        self._size += len(data)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()
        return start

    def sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        self._file.close()


def seal(log: Path) -> None:
    """Turn a log into a segment of the same name, then remove it. Doing it twice, or dying midway, changes nothing."""
    segment = log.parent.parent / "segments" / f"{log.stem}.parquet"
    if not segment.is_file():
        records, _ = read_lines(log.read_bytes())
        if records:
            for record in records:
                record["nll"] = float("nan") if record["nll"] is None else record["nll"]
            _write_segment(segment, _unique(pa.Table.from_pylist(records, schema=SCHEMA)))
    log.unlink(missing_ok=True)


def seal_dead_logs(folder: Path) -> None:
    """Seal the logs whose writers on this host are gone; those of other hosts stay logs, which are read as well."""
    for log in (folder / "logs").glob("*.jsonl"):
        if log.stem.rsplit("-", 2)[0] != socket.gethostname():
            continue
        with contextlib.suppress(OSError), open(log, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seal(log)


def read_lines(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a log as records, and how many were unreadable; a torn last line is not looked at."""
    records, _, unreadable = _parse(data)
    return records, unreadable


def _parse(data: bytes) -> tuple[list[dict[str, Any]], list[int], int]:
    records, positions, unreadable = [], [], 0
    for position, line in _whole_lines(data):
        try:
            records.append(orjson.loads(line))
            positions.append(position)
        except orjson.JSONDecodeError:  # blocks lost by a dead machine
            unreadable += 1
    return records, positions, unreadable


def _whole_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while (end := data.find(b"\n", position)) >= 0:
        yield position, data[position:end]
        position = end + 1


def _unique(table: pa.Table) -> pa.Table:
    """The first row of each key, in order."""
    seen: dict[str, int] = {}
    for row, key in enumerate(table["key"].to_pylist()):
        seen.setdefault(key, row)
    return table if len(seen) == len(table) else table.take(list(seen.values()))


def _write_segment(path: Path, table: pa.Table) -> None:
    draft = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial")
    with open(draft, "wb") as file:
        pq.write_table(table, file, compression="zstd", row_group_size=GROUP_ROWS)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _new_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def _check_format(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / "store.json"
    names = {entry.name for entry in folder.iterdir()}
    if marker.name not in names and names:
        raise InputError(f"{folder} exists and is no generation store; choose another --store")
    if marker.name in names:
        if (found := orjson.loads(marker.read_bytes()).get("format")) != FORMAT:
            raise InputError(f"{marker}: format {found!r}, this program reads {FORMAT}; use another --store")
        return
    draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    draft.write_bytes(orjson.dumps({"kind": "generation store", "format": FORMAT}))
    os.replace(draft, marker)

"""One unit of work: read, render, filter, check against benchmarks, tokenize; a folder with ids, records and a receipt.

A shard depends on its unit's bytes and on the job alone. It is written beside its place and renamed, so a killed worker
leaves nothing that looks whole, and a finished one is never made twice.
"""

import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import xxhash

from prism_nemo.artifacts import fingerprint
from prism_nemo.data.contamination import Screen, load_screen
from prism_nemo.data.draw import FULL, RowKeys
from prism_nemo.data.encode import Encoder, TokenizerFacts, framed, load_encoder
from prism_nemo.data.files import Unit, table_path
from prism_nemo.data.indexed import token_dtype
from prism_nemo.data.mixture import Mixture
from prism_nemo.data.render import BadRowError, FilteredError, Rendered, Renderer
from prism_nemo.data.rows import Bad, Row, read_rows
from prism_nemo.errors import InputError

FORMAT = 1
BATCH_BYTES = 1 << 19
BATCH_DOCUMENTS = 1024
RAW_LIMIT = 1 << 16

CLEAN, CONTAMINATED, SHORT = range(3)
RECORD = np.dtype(
    [
        ("draw", "<u8"),  # the row's key; the smallest keys are drawn first
        ("hash_high", "<u8"),  # xxh3_128 of the text
        ("hash_low", "<u8"),
        ("group", "<u8"),  # equal for documents that stay on one side of a split
        ("position", "<i8"),  # byte offset or row number
        ("tokens", "<i4"),  # EOD included
        ("file", "<i4"),  # index into the unit's names
        ("state", "u1"),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all workers share."""

    mixture: Mixture
    tokenizer: TokenizerFacts
    encoder: str
    """gigatoken, fastokens or tokenizers."""
    seed: int
    screen: Path | None
    """Folder with the index of benchmark n-grams."""
    max_document_bytes: int
    """Longer documents are quarantined; UTF-8 bytes."""
    strict: bool
    """Stop at the first bad row."""
    files: dict[str, str]
    """Path -> xxh3_128 of every source file."""
    screen_fingerprint: str = ""

    @cached_property
    def _common(self) -> str:
        return fingerprint(
            {
                "format": FORMAT,
                "tokenizer": self.tokenizer.fingerprint,
                "seed": self.seed,
                "screen": self.screen_fingerprint,
                "limit": self.max_document_bytes,
                "min_tokens": self.mixture.min_tokens,
            }
        )

    def key(self, unit: Unit, low: int, high: int) -> str:
        """Names a shard by everything that decides its content; weights and budgets do not."""
        source = self.mixture.sources[unit.source]
        part = source.parts[unit.part]
        return fingerprint(
            {
                "common": self._common,
                "source": source.name,
                "part": {
                    "name": part.name,
                    "render": part.render,
                    "where": part.where,
                    "join": part.join,
                    "group": part.group,
                },
                "unit": [unit.kind, unit.names, unit.start, unit.end],
                "files": [self.files[str(Path(unit.root) / name)] for name in unit.names],
                "table": self.files[str(table_path(Path(unit.root), part.join))] if part.join else "",
                "draw": [str(low), str(high)],
            }
        )


@dataclass(slots=True)
class Receipt:
    """What became of a unit's rows: rows = filtered + quarantined + not_drawn + records in the shard."""

    rows: int = 0
    """Rows in the unit, whether drawn or not."""
    not_drawn: int = 0
    """Rows outside of this shard's stretch of the random draw; not parsed."""
    filtered: dict[str, int] = field(default_factory=dict)
    """Condition -> rows it left out."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """Reason -> rows."""
    text_bytes: int = 0
    """UTF-8 bytes of the documents."""
    eod_inside: int = 0
    """Documents whose own text holds the end-of-document token."""


@dataclass(slots=True)
class _Document:
    row: Row
    text: str
    data: bytes
    group: str | None
    draw: int


class Worker:
    """Makes shards; keeps the encoder and the compiled renderers of one process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.dtype = token_dtype(job.tokenizer.vocab_size)
        self._renderers: dict[tuple[int, int], Renderer] = {}

    @cached_property
    def encode(self) -> Encoder:
        return load_encoder(self.job.encoder, self.job.tokenizer)

    @cached_property
    def screen(self) -> Screen | None:
        return load_screen(self.job.screen) if self.job.screen else None

    def renderer(self, unit: Unit) -> Renderer:
        key = (unit.source, unit.part)
        if key not in self._renderers:
            part = self.job.mixture.sources[unit.source].parts[unit.part]
            self._renderers[key] = Renderer(part, Path(unit.root))
        return self._renderers[key]

    def make(self, unit: Unit, low: int, high: int, shards: Path) -> Path:
        """The finished shard's folder; rows with draw keys in [low, high) are in it."""
        folder = shards / self.job.key(unit, low, high)
        if folder.exists():
            return folder
        partial = folder.with_name(f".{folder.name}.{own_suffix()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            self._fill(unit, low, high, partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        try:
            partial.rename(folder)
        except OSError:  # another process was faster with the very same shard
            shutil.rmtree(partial)
        return folder

    def _fill(self, unit: Unit, low: int, high: int, folder: Path) -> None:
        receipt = Receipt()
        with (
            open(folder / "ids.bin", "wb") as ids,
            open(folder / "records.bin", "wb") as records,
            open(folder / "quarantine.jsonl", "wb") as quarantine,
            open(folder / "contaminated.jsonl", "wb") as hits,
        ):
            for batch in _batches(self._documents(unit, low, high, receipt, quarantine)):
                self._encode(unit, batch, receipt, ids, records, hits)
            for file in (ids, records, quarantine, hits):
                file.flush()
                os.fsync(file.fileno())
        (folder / "receipt.json").write_bytes(orjson.dumps(receipt))

    def _documents(
        self, unit: Unit, low: int, high: int, receipt: Receipt, quarantine: BinaryIO
    ) -> Iterator[_Document]:
        """Rendered documents; what is filtered or bad is counted, and the bad kept, on the way."""
        source = self.job.mixture.sources[unit.source]
        keys = RowKeys(self.job.seed, source.name, source.parts[unit.part].name)
        render, filtered, bad = self.renderer(unit), Counter[str](), Counter[str]()
        whole = (low, high) == (0, FULL)
        for row in read_rows(unit, render.columns, _every_row if whole else lambda *place: low <= keys(*place) < high):
            receipt.rows += 1
            if row is None:
                receipt.not_drawn += 1
                continue
            try:
                yield self._document(row, render, keys(row.name, row.position))
            except FilteredError as reason:
                filtered[str(reason)] += 1
            except BadRowError as reason:
                bad[str(reason)] += 1
                self._quarantine(unit, row, str(reason), quarantine)
        receipt.filtered, receipt.quarantined = dict(sorted(filtered.items())), dict(sorted(bad.items()))

    def _document(self, row: Row, render: Renderer, draw: int) -> _Document:
        if isinstance(row.content, Bad):
            raise BadRowError(row.content.reason)
        rendered: Rendered = render(row.content)
        try:
            data = rendered.text.encode("utf-8")
        except UnicodeEncodeError:
            raise BadRowError("lone surrogate") from None
        if len(data) > self.job.max_document_bytes:
            raise BadRowError("document over the length limit")
        return _Document(row, rendered.text, data, rendered.group, draw)

    def _quarantine(self, unit: Unit, row: Row, reason: str, out: BinaryIO) -> None:
        source = self.job.mixture.sources[unit.source]
        if self.job.strict:
            where = place(unit, row.name, row.line)
            raise InputError(f"{where} (source {source.name}): {reason}; correct the row or run without --strict")
        raw = row.content.raw if isinstance(row.content, Bad) else _raw(row.content)
        entry = {
            "source": source.name,
            "part": source.parts[unit.part].name,
            "file": row.name,
            "line": row.line,
            "reason": reason,
            "raw": raw[:RAW_LIMIT].decode("utf-8", "backslashreplace").rstrip("\n"),
        }
        out.write(orjson.dumps(entry) + b"\n")

    def _encode(
        self,
        unit: Unit,
        batch: list[_Document],
        receipt: Receipt,
        ids: BinaryIO,
        records: BinaryIO,
        hits: BinaryIO,
    ) -> None:
        table = np.zeros(len(batch), RECORD)
        table["draw"] = [document.draw for document in batch]
        table["position"] = [document.row.position for document in batch]
        places = {name: number for number, name in enumerate(unit.names)}
        table["file"] = [places[document.row.name] for document in batch]
        _hash(batch, table)
        if self.screen:
            self._mark_contaminated(unit, batch, table, hits)
        tokens, lengths = framed(self.encode([document.text for document in batch]), self.job.tokenizer, self.dtype)
        table["tokens"] = lengths
        prefix = len(self.job.tokenizer.prefix)
        shortest = max(self.job.mixture.min_tokens, prefix + 2)  # a document has one token of its own at least
        table["state"][(table["state"] == CLEAN) & (lengths < shortest)] = SHORT
        clean = table["state"] == CLEAN
        ids.write(tokens if clean.all() else tokens[np.repeat(clean, lengths)])
        records.write(table)
        receipt.text_bytes += sum(len(document.data) for document in batch)
        receipt.eod_inside += _eod_inside(tokens, lengths, prefix, self.job.tokenizer.eod)

    def _mark_contaminated(self, unit: Unit, batch: list[_Document], table: np.ndarray, out: BinaryIO) -> None:
        assert self.screen is not None
        source = self.job.mixture.sources[unit.source]
        for number, hit in self.screen.find([document.data for document in batch]):
            table["state"][number] = CONTAMINATED
            row = batch[number].row
            place = {"source": source.name, "file": row.name, "line": row.line}
            out.write(orjson.dumps({**place, **hit}) + b"\n")


def place(unit: Unit, name: str, line: int) -> str:
    """Where a row of a unit is, for an error: lines of a large jsonl file are counted from its unit's first byte."""
    after = f" after byte {unit.start}" if unit.kind == "jsonl" and unit.start else ""
    return f"{Path(unit.root) / name}: line {line + 1}{after}"


def first_bad_row(unit: Unit, folder: Path) -> str:
    """Where the first quarantined row of a finished shard is."""
    with open(folder / "quarantine.jsonl", "rb") as lines:
        entry = orjson.loads(lines.readline())
    return place(unit, entry["file"], entry["line"])


def _every_row(name: str, position: int) -> bool:
    return True


def own_suffix() -> str:
    """Of temporary names: no other process has it, on no other machine with the same disk."""
    return f"{socket.gethostname()}.{os.getpid()}"


def read_receipt(folder: Path) -> Receipt:
    """The receipt of a finished shard."""
    return Receipt(**orjson.loads((folder / "receipt.json").read_bytes()))


def _hash(batch: list[_Document], table: np.ndarray) -> None:
    digests = b"".join(xxhash.xxh3_128_digest(document.data) for document in batch)
    pairs = np.frombuffer(digests, ">u8").reshape(-1, 2)
    table["hash_high"], table["hash_low"] = pairs[:, 0], pairs[:, 1]
    table["group"] = pairs[:, 1]
    for number, document in enumerate(batch):
        if document.group is not None:
            table["group"][number] = xxhash.xxh3_64_intdigest(document.group.encode("utf-8", "surrogatepass"))


def _eod_inside(tokens: np.ndarray, lengths: np.ndarray, prefix: int, eod: int) -> int:
    """How many documents hold the EOD id in their own text, after the prefix and before their end."""
    found = tokens == eod
    if not prefix and np.count_nonzero(found) == len(lengths):
        return 0
    ends, places = np.cumsum(lengths), np.flatnonzero(found)
    owner = np.searchsorted(ends, places, side="right")
    own = (places >= ends[owner] - lengths[owner] + prefix) & (places < ends[owner] - 1)
    return len(np.unique(owner[own]))


def _raw(content: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(content, default=repr)
    except (TypeError, ValueError):  # lone surrogates
        return repr(content).encode("utf-8", "backslashreplace")


def _batches(documents: Iterator[_Document]) -> Iterator[list[_Document]]:
    batch: list[_Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.data)
        if size >= BATCH_BYTES or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

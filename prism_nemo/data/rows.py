"""Rows of a unit, one by one: (position, line number, row or the reason why it cannot be read).

We parse rows ourselves: an encoder's own file reader drops the rest of a file after one bad row without a word.
"""

import codecs
import contextlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from prism_nemo.data.files import Unit
from prism_nemo.errors import InputError

CHUNK = 1 << 16
MAX_LINE = 256 << 20
ROWS = 256

Wanted = Callable[[str, int], bool]
"""Whether the row of a file (name, position) is drawn at all; the others are counted but not parsed."""


@dataclass(slots=True)
class Bad:
    """A row that cannot become a document."""

    reason: str
    raw: bytes


@dataclass(slots=True)
class Row:
    """A row as it was read."""

    position: int
    """Byte offset (jsonl) or row number in the file; with the file's name it decides what the random draw does."""
    line: int
    """Line or row number, counted from 0 within the unit (within the file for everything but jsonl)."""
    name: str
    """File name, relative to the source's folder."""
    content: dict[str, Any] | Bad


def read_rows(unit: Unit, columns: tuple[str, ...], wanted: Wanted) -> Iterator[Row | None]:
    """Every row of a unit in order; None stands for one that was not wanted.

    Raises InputError for a file that is missing, truncated or damaged, or lacks one of the `columns` altogether.
    """
    try:
        yield from _READERS[unit.kind](unit, columns, wanted)
    except FileNotFoundError:
        raise InputError(f"{unit.path} does not exist any more") from None


def parse(line: bytes) -> dict[str, Any] | Bad:
    """A JSON object, or why it is none."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if line.startswith(codecs.BOM_UTF8):  # of the first line of files from Windows
            return parse(line.removeprefix(codecs.BOM_UTF8))
        return Bad(_json_reason(line, str(error)), line)
    return row if isinstance(row, dict) else Bad("not a JSON object", line)


def _json_reason(line: bytes, message: str) -> str:
    if not line.strip():
        return "blank line"
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return "bad UTF-8"
    return "lone surrogate" if "surrogate" in message else "broken JSON"


def _jsonl(unit: Unit, columns: tuple[str, ...], wanted: Wanted) -> Iterator[Row | None]:
    """Lines whose first byte lies in [start, end)."""
    with open(unit.path, "rb", buffering=1 << 20) as file:
        if unit.start:
            file.seek(unit.start - 1)
            _skip_line(file)
        position, number = file.tell(), 0
        while position < unit.end:
            line = file.readline(MAX_LINE)
            if not line:
                break
            length = len(line)
            whole = length < MAX_LINE or line.endswith(b"\n")
            if not whole:
                length += _skip_line(file)
            yield _row(position, number, unit.names[0], line, wanted, whole)
            position += length
            number += 1


def _skip_line(file: Any) -> int:
    length = 0
    while piece := file.readline(MAX_LINE):
        length += len(piece)
        if piece.endswith(b"\n"):
            break
    return length


def _row(position: int, number: int, name: str, line: bytes, wanted: Wanted, whole: bool = True) -> Row | None:
    if not wanted(name, position):
        return None
    content = parse(line) if whole else Bad("line over the length limit", line[:CHUNK])
    return Row(position, number, name, content)


def _compressed(unit: Unit, columns: tuple[str, ...], wanted: Wanted) -> Iterator[Row | None]:
    """Lines of a gzip or zstd file; a stream that ends inside a frame is an error, not an early end."""
    with open(unit.path, "rb") as file:
        for number, (line, whole) in enumerate(_lines(_decompressed(file, unit))):
            yield _row(number, number, unit.names[0], line, wanted, whole)


def _lines(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """(line, whether it is whole): of a line over MAX_LINE only the beginning is kept."""
    line, length = bytearray(), 0
    for piece in pieces:
        first, *others = piece.split(b"\n")
        length += len(first)
        if length <= MAX_LINE:
            line += first
        if others:
            yield bytes(line), length <= MAX_LINE
            yield from ((whole, len(whole) <= MAX_LINE) for whole in others[:-1])
            line, length = bytearray(others[-1]), len(others[-1])
    if length:
        yield bytes(line), length <= MAX_LINE


def _decompressed(file: BinaryIO, unit: Unit) -> Iterator[bytes]:
    import zstandard

    def fresh() -> Any:
        return zlib.decompressobj(31) if unit.kind == "gz" else zstandard.ZstdDecompressor().decompressobj()

    stream, inside = fresh(), False
    try:
        while data := file.read(CHUNK):
            while data:
                inside = True
                yield stream.decompress(data)
                data = b""
                if stream.eof:  # a file may hold several frames, one after the other
                    data, stream, inside = stream.unused_data, fresh(), False
    except (zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"{unit.path} is damaged ({error}); fetch it again") from None
    if inside:
        raise InputError(f"{unit.path} is truncated: it ends inside a compressed frame; fetch it again")


def compressed_beginning(unit: Unit, most: int) -> tuple[list[bytes], float]:
    """Whole lines from the first `most` bytes of a compressed file's text, and bytes of text for each byte of file."""
    text = bytearray()
    with open(unit.path, "rb") as file:
        for piece in _decompressed(file, unit):
            text += piece
            if len(text) >= most:
                break
        ratio = len(text) / max(file.tell(), 1)
    lines = bytes(text).split(b"\n")
    return lines[:-1] or lines, ratio


def _parquet(unit: Unit, columns: tuple[str, ...], wanted: Wanted) -> Iterator[Row | None]:
    from pyarrow import parquet

    # Unbuffered, the whole column of a row group would be held in memory, however large it is.
    with _readable(unit.path), parquet.ParquetFile(unit.path, buffer_size=CHUNK, pre_buffer=False) as file:
        _need_columns(unit.path, columns, file.schema_arrow.names)
        number = sum(file.metadata.row_group(index).num_rows for index in range(unit.start))
        groups = list(range(unit.start, unit.end))
        for batch in file.iter_batches(ROWS, row_groups=groups, columns=list(columns), use_threads=False):
            yield from _batch_rows(batch, number, unit.names[0], wanted)
            number += batch.num_rows


def _arrow(unit: Unit, columns: tuple[str, ...], wanted: Wanted) -> Iterator[Row | None]:
    """An arrow stream (what `datasets` writes) or an arrow file."""
    number = 0
    for batch in _record_batches(unit.path):
        _need_columns(unit.path, columns, batch.schema.names)
        for start in range(0, batch.num_rows, ROWS):
            piece = batch.slice(start, ROWS).select(list(columns))
            yield from _batch_rows(piece, number, unit.names[0], wanted)
            number += piece.num_rows


def arrow_rows(path: Path) -> int:
    """Rows of an arrow file or stream; of its content only the batches' headers are read."""
    return sum(batch.num_rows for batch in _record_batches(path))


def _record_batches(path: Path) -> Iterator[Any]:
    import pyarrow

    with _readable(path), pyarrow.memory_map(str(path)) as mapped:
        is_file = mapped.read(6) == b"ARROW1"
        mapped.seek(0)
        if is_file:
            reader = pyarrow.ipc.open_file(mapped)
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            yield from pyarrow.ipc.open_stream(mapped)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is truncated or damaged ({_one_line(error)}); fetch it again") from None


def _batch_rows(batch: Any, number: int, name: str, wanted: Wanted) -> Iterator[Row | None]:
    """Only what is wanted becomes Python objects; of a memory-mapped file the rest is not even read."""
    import pyarrow

    keep = [wanted(name, index) for index in range(number, number + batch.num_rows)]
    contents = iter(_contents(batch if all(keep) else batch.filter(pyarrow.array(keep, pyarrow.bool_()))))
    for index, drawn in enumerate(keep, number):
        yield Row(index, index, name, next(contents)) if drawn else None


def _contents(batch: Any) -> list[dict[str, Any] | Bad]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [_arrow_row(batch, index) for index in range(batch.num_rows)]


def _arrow_row(batch: Any, index: int) -> dict[str, Any] | Bad:
    row = batch.slice(index, 1)
    try:
        return dict(row.to_pylist()[0])
    except UnicodeDecodeError:
        return Bad("bad UTF-8", repr(row).encode()[:CHUNK])


def _need_columns(path: Path, columns: tuple[str, ...], present: list[str]) -> None:
    for column in columns:
        if column not in present:
            raise InputError(f"{path} has no column {column!r}; it has: {', '.join(present)}")


def _text(unit: Unit, columns: tuple[str, ...], wanted: Wanted) -> Iterator[Row | None]:
    """Every file is one document, whatever the renderer's column is called."""
    for name in unit.names:
        if not wanted(name, 0):
            yield None
            continue
        with open(Path(unit.root) / name, "rb") as file:
            raw = file.read(MAX_LINE + 1)
        if len(raw) > MAX_LINE:
            yield Row(0, 0, name, Bad("file over the length limit", raw[:CHUNK]))
            continue
        try:
            content: dict[str, Any] | Bad = dict.fromkeys(columns or ("text",), raw.decode("utf-8"))
        except UnicodeDecodeError:
            content = Bad("bad UTF-8", raw)
        yield Row(0, 0, name, content)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


_READERS = {
    "jsonl": _jsonl,
    "gz": _compressed,
    "zst": _compressed,
    "parquet": _parquet,
    "arrow": _arrow,
    "text": _text,
}

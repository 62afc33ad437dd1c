"""A look at every source before the work starts: texts for the encoder's self-test, and how many tokens it may hold."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_nemo.data.encode import Encoder
from prism_nemo.data.files import Unit
from prism_nemo.data.mixture import Mixture, Part, Source
from prism_nemo.data.render import BadRowError, FilteredError, Renderer
from prism_nemo.data.rows import Bad, arrow_rows, compressed_beginning, parse, read_rows
from prism_nemo.errors import InputError

FILES = 6
ROWS = 40
CHARACTERS = 20_000
TEXTS = 400
COMPRESSED = 4 << 20
"""Bytes of text that are unpacked of a compressed file."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many tokens a source holds."""

    tokens: float
    believed: bool
    """False for what only the beginnings of compressed files or the source's own entry say: that decides how much is
    read first, and refuses no budget."""


@dataclass(slots=True)
class _Files:
    """Files of one part and one kind, and what was seen of them. Their measure is rows for parquet and arrow, else
    bytes of text."""

    kind: str
    units: list[Unit]
    texts: list[str] = field(default_factory=list)
    seen: float = 0.0
    """Measure of the rows looked at, bad and filtered ones included."""
    ratios: list[float] = field(default_factory=list)
    """Bytes of text in each byte of the compressed files looked at."""
    filtered: int = 0
    """Rows looked at that the part's filter leaves out."""
    bad: int = 0
    """Rows looked at that cannot become a document."""
    first_bad: tuple[Path, str, Mapping[str, Any] | Bad] | None = None
    """File, reason and content of the first of them."""

    def tokens(self, encode: Encoder) -> float:
        """Estimated tokens of all the files; 0 when no row looked at became a document."""
        if not self.texts:
            return 0.0
        return (sum(map(len, encode(self.texts))) + len(self.texts)) / self.seen * self._size()

    def _size(self) -> float:
        if self.kind == "parquet":
            return _parquet_rows(self.units)
        if self.kind == "arrow":
            return sum(arrow_rows(unit.path) for unit in self.units)
        size = sum(unit.bytes for unit in self.units)
        return size * sum(self.ratios) / len(self.ratios) if self.ratios else size


@dataclass(slots=True)
class Sample:
    """Documents from some files of each part of one source."""

    files: list[_Files] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """The documents."""
        return [text for files in self.files for text in files.texts]

    def estimate(self, source: Source, encode: Encoder) -> Estimate | None:
        """Tokens of the whole source. Where the sample shows nothing, what the entry of a hub's source says; else None:
        only reading it all would tell."""
        tokens = [files.tokens(encode) for files in self.files]
        if tokens and all(tokens):
            return Estimate(sum(tokens), believed=not any(files.ratios for files in self.files))
        hub = all(part.path is None for part in source.parts)
        return Estimate(source.tokens, believed=False) if hub and source.tokens else None


def sample_sources(mixture: Mixture, units: list[Unit]) -> list[Sample]:
    """A sample of every source, in the mixture's order; bad and filtered rows are passed over."""
    samples = [Sample() for _ in mixture.sources]
    key = lambda unit: (unit.source, unit.part, unit.kind)  # noqa: E731
    for (source, part, kind), group in itertools.groupby(sorted(units, key=key), key=key):
        files = _Files(kind, list(group))
        samples[source].files.append(files)
        renderers: dict[str, Renderer] = {}
        for unit in _probes(files.units):
            if unit.root not in renderers:
                renderers[unit.root] = Renderer(mixture.sources[source].parts[part], Path(unit.root))
            _look(unit, renderers[unit.root], files)
    return samples


def _probes(units: list[Unit]) -> Iterator[Unit]:
    """The first, a middle and the last unit of some files, evenly spread."""
    files = [list(group) for _, group in itertools.groupby(units, key=lambda unit: unit.names)]
    for own in files[:: max(1, len(files) // FILES)][:FILES]:
        yield from (own[place] for place in sorted({0, len(own) // 2, len(own) - 1}))


def _look(unit: Unit, renderer: Renderer, files: _Files) -> None:
    for content, measure in _READERS[unit.kind](unit, renderer.columns, files):
        files.seen += measure
        try:
            files.texts.append(_text(renderer, content))
        except FilteredError:
            files.filtered += 1
        except BadRowError as reason:
            files.bad += 1
            files.first_bad = files.first_bad or (unit.path, str(reason), content)


def _text(renderer: Renderer, content: dict[str, Any] | Bad) -> str:
    if isinstance(content, Bad):
        raise BadRowError(content.reason)
    text = renderer(content).text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRowError("lone surrogate") from None
    return text


def check_readable(mixture: Mixture, samples: Sequence[Sample]) -> None:
    """Raise InputError when no row looked at in a source's files can become a document: a wrong column or format."""
    for source, sample in zip(mixture.sources, samples, strict=True):
        for files in sample.files:
            if files.first_bad and not (files.texts or files.filtered):
                file, reason, content = files.first_bad
                raise InputError(
                    f"source {source.name}: none of the {files.bad} rows looked at can be used; the first, in {file}: "
                    f"{reason}; {_advice(content)}"
                )


def _advice(content: Mapping[str, Any] | Bad) -> str:
    if isinstance(content, Bad):
        return "every line has to be one JSON object in UTF-8"
    keys = ", ".join(list(content)[:12])
    return f"its keys are {keys}; correct `render` and `where` of the source, or the file"


Measured = Iterator[tuple[dict[str, Any] | Bad, float]]
"""Rows and the measure of each."""


def _lines(unit: Unit, columns: tuple[str, ...], files: _Files) -> Measured:
    found = itertools.islice(read_rows(unit, columns, lambda name, position: True), ROWS + 1)
    rows = [row for row in found if row is not None]
    ends = [row.position for row in rows[1:]] + ([unit.end] if len(rows) <= ROWS else [])
    for row, end in zip(rows, ends, strict=False):
        yield row.content, max(end - row.position, 1)


def _compressed_lines(unit: Unit, columns: tuple[str, ...], files: _Files) -> Measured:
    lines, ratio = compressed_beginning(unit, COMPRESSED)
    files.ratios.append(ratio)
    for line in lines[:: max(1, len(lines) // ROWS)][:ROWS]:
        yield parse(line), len(line) + 1


def _table(unit: Unit, columns: tuple[str, ...], files: _Files) -> Measured:
    """The first rows; of an arrow file, where skipping costs nothing, rows from all over it."""
    step = max(1, arrow_rows(unit.path) // ROWS) if unit.kind == "arrow" else 1
    rows = read_rows(unit, columns, lambda name, position: position % step == 0)
    for row in itertools.islice((row for row in rows if row is not None), ROWS):
        yield row.content, 1


def _text_files(unit: Unit, columns: tuple[str, ...], files: _Files) -> Measured:
    for row in itertools.islice(read_rows(unit, columns, lambda name, position: True), ROWS):
        assert row is not None
        yield row.content, max((Path(unit.root) / row.name).stat().st_size, 1)


_READERS = {
    "jsonl": _lines,
    "gz": _compressed_lines,
    "zst": _compressed_lines,
    "parquet": _table,
    "arrow": _table,
    "text": _text_files,
}


def _parquet_rows(units: list[Unit]) -> int:
    from pyarrow import parquet

    total = 0
    for unit in units:
        meta = parquet.read_metadata(unit.path)
        total += sum(meta.row_group(index).num_rows for index in range(unit.start, unit.end))
    return total


def self_test_texts(samples: Sequence[Sample]) -> list[str]:
    """Some texts of every source, cut to a bounded length."""
    each = max(1, TEXTS // max(1, len(samples)))
    return [text[:CHARACTERS] for sample in samples for text in sample.texts[:each]]


def has_limit(parts: tuple[Part, ...]) -> bool:
    """Whether a part keeps a fixed number of documents, which have to be chosen from all of them."""
    return any(part.max_documents is not None for part in parts)

"""A look at every source before the work starts: texts for the encoder's self-test, and how many tokens it may hold."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prism_nemo.data.encode import Encoder
from prism_nemo.data.files import Unit
from prism_nemo.data.mixture import Mixture, Part
from prism_nemo.data.render import BadRowError, FilteredError, Renderer
from prism_nemo.data.rows import Bad, read_rows

FILES = 6
ROWS = 40
CHARACTERS = 20_000
TEXTS = 400


@dataclass(slots=True)
class Sample:
    """Documents from the beginning and the middle of some files of one source."""

    texts: list[str] = field(default_factory=list)
    rows: int = 0
    """Rows looked at, bad and filtered ones included."""
    bytes: int = 0
    """Bytes of those rows in the file; 0 where that is not known."""
    units: list[Unit] = field(default_factory=list)

    def tokens(self, encode: Encoder) -> float | None:
        """Estimated tokens of the whole source; None where only reading it all would tell (compressed lines, text)."""
        kinds = {unit.kind for unit in self.units}
        if not self.rows or not self.texts:
            return None
        tokens = sum(map(len, encode(self.texts))) + len(self.texts)
        if kinds == {"jsonl"}:
            return tokens / self.bytes * sum(unit.bytes for unit in self.units)
        if kinds == {"parquet"}:
            return tokens / self.rows * _parquet_rows(self.units)
        return None


def sample_sources(mixture: Mixture, units: list[Unit]) -> list[Sample]:
    """A sample of every source, in the mixture's order; bad and filtered rows are passed over."""
    samples = [Sample() for _ in mixture.sources]
    for (source, part), group in itertools.groupby(units, key=lambda unit: (unit.source, unit.part)):
        own = list(group)
        samples[source].units += own
        renderers: dict[str, Renderer] = {}
        for probe in _probes(own):
            if probe.root not in renderers:
                renderers[probe.root] = Renderer(mixture.sources[source].parts[part], Path(probe.root))
            _read(probe, renderers[probe.root], samples[source])
    return samples


def _probes(units: list[Unit]) -> Iterator[Unit]:
    """The first and a middle unit of some files, evenly spread."""
    files = [list(group) for _, group in itertools.groupby(units, key=lambda unit: unit.names)]
    for own in files[:: max(1, len(files) // FILES)][:FILES]:
        yield own[0]
        if len(own) > 1:
            yield own[len(own) // 2]


def _read(unit: Unit, renderer: Renderer, sample: Sample) -> None:
    first = last = None
    rows = itertools.islice(read_rows(unit, renderer.columns, lambda name, position: True), ROWS + 1)
    for number, row in enumerate(rows):
        assert row is not None
        first = row.position if first is None else first
        last = row.position
        if number == ROWS:
            break
        sample.rows += 1
        if not isinstance(row.content, Bad) and (text := _text(renderer, row.content)):
            sample.texts.append(text)
    else:
        last = unit.end
    if unit.kind == "jsonl" and first is not None and last is not None:
        sample.bytes += max(last - first, 1)


def _text(renderer: Renderer, content: dict) -> str | None:
    try:
        text = renderer(content).text
        text.encode("utf-8")
    except (BadRowError, FilteredError, UnicodeEncodeError):
        return None
    return text


def _parquet_rows(units: list[Unit]) -> int:
    from pyarrow import parquet

    total = 0
    for unit in units:
        meta = parquet.read_metadata(unit.path)
        total += sum(meta.row_group(index).num_rows for index in range(unit.start, unit.end))
    return total


def self_test_texts(samples: list[Sample]) -> list[str]:
    """Some texts of every source, cut to a bounded length."""
    each = max(1, TEXTS // max(1, len(samples)))
    return [text[:CHARACTERS] for sample in samples for text in sample.texts[:each]]


def has_limit(parts: tuple[Part, ...]) -> bool:
    """Whether a part keeps a fixed number of documents, which have to be chosen from all of them."""
    return any(part.max_documents is not None for part in parts)

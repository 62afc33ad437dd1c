"""Mixtures: which sources, in which shares of training tokens, rendered how. Plain YAML; needs no torch.

`data_prep/mixtures/NAME.yaml` lists sources with weights; `data_prep/sources/NAME.yaml` says what a source is. A
mixture file may also spell a source out in place. `load_mixture` turns both into frozen dataclasses, and refuses a key
or a name that it does not know.
"""

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_nemo.data.schema import build, read_yaml, suggestion
from prism_nemo.errors import InputError

DATA_PREP = Path(__file__).resolve().parents[2] / "data_prep"

CONDITIONS = ("equals", "not_equals", "one_of", "at_least", "at_most", "matches")
RENDERS = ("text", "chat", "answer", "template")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A data set on the Hugging Face hub (or a local folder that `datasets.load_dataset` takes)."""

    id: str
    """`owner/name`."""
    config: str | None = None
    """Configuration name; None is the default one."""
    split: str = "train"
    """Split name."""
    data_dir: str | None = None
    """Folder inside the data set, where one id holds several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Keep a row only if its column passes; exactly one of the tests is set. A missing column is a bad row."""

    column: str
    """Column name."""
    equals: Any = None
    """The value it must have."""
    not_equals: Any = None
    """A value it must not have; numbers also compare with their text form, since some sets store numbers as text."""
    one_of: tuple[Any, ...] | None = None
    """The values it may have."""
    at_least: float | None = None
    """Lowest number allowed."""
    at_most: float | None = None
    """Highest number allowed."""
    matches: str | None = None
    """Regular expression that must be found in it."""

    def test(self) -> str:
        """Which test is set. Raises InputError unless it is exactly one."""
        chosen = [name for name in CONDITIONS if getattr(self, name) is not None]
        if len(chosen) != 1:
            raise InputError(f"the filter on column {self.column!r} needs exactly one of {', '.join(CONDITIONS)}")
        return chosen[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Render:
    """How a row becomes the text of a document (paper, section 3.1)."""

    kind: str = "text"
    """`text`: one column as it is. `chat`: every turn on its own line after `User: ` or `Assistant: `.
    `answer`: question, one line break, answer, from a list of turns. `template`: columns put into `template`."""
    column: str = "text"
    """The column with the text, or with the list of turns."""
    role: str = "role"
    """Key of a turn's speaker."""
    content: str = "content"
    """Key of a turn's words."""
    template: str = ""
    """For `template`: text with {column} in it, such as "{question}\\n{r1_generation}"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A table that supplies a column which the rows lack."""

    table: str
    """Name of the table's file (jsonl or parquet, also compressed) in the source's folder, with or without suffix."""
    by: tuple[str, ...]
    """Columns, present in both, that identify a row; compared as text."""
    column: str
    """The column to take from the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One data set with one schema; most sources have a single part."""

    name: str = ""
    """Names the part within its source; empty when there is only one."""
    path: str | None = None
    """File, folder or glob on this machine."""
    hub: Hub | None = None
    """Where it is downloaded from when no path is given."""
    render: Render = field(default_factory=Render)
    """Row to text."""
    where: tuple[Condition, ...] = ()
    """Rows that fail a condition are filtered out, and counted."""
    join: Join | None = None
    """Question texts and the like from another table."""
    group: str | None = None
    """Column whose equal values must stay on one side of the train/valid split (several answers to one question). For
    `answer` rows the question is the default, otherwise every document is its own group."""
    max_documents: int | None = None
    """Keep a seeded random sample of at most so many documents."""
    note: str = ""
    """What the hub copy lacks, or how to get the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source with its share in a mixture."""

    name: str
    """Names files and report lines; letters, digits, `_`, `-` and `.`."""
    weight: float
    """Share of the training tokens, 0 to 1."""
    parts: tuple[Part, ...]
    """Data sets, pooled by their size."""
    domain: str = "general"
    """general, math, code, science, ...: reports add up by it."""
    max_epochs: float | None = None
    """How often its documents may be repeated at most; None is no limit."""
    licence: str = ""
    """As its publisher states it."""
    tokens: float | None = None
    """Known population in tokens (Granite-3.3 tokenizer, paper, Table 1), for plans made before the data is read."""

    def local_names(self) -> set[str]:
        """What the user's own files may stand for: the source, or SOURCE.PART of several parts."""
        return {self.name} | {f"{self.name}.{part.name}" for part in self.parts if part.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Sources with shares that add up to 1."""

    name: str
    """Its name, which artifacts and reports carry."""
    sources: tuple[Source, ...]
    """In the order of the file; of exact duplicates the first in this order is kept."""
    decontamination: str | None = None
    """Name or path of the benchmark list that documents are checked against; None checks nothing."""
    min_tokens: int = 0
    """Documents with fewer tokens, EOD included, are filtered out (long-context mixtures)."""
    note: str = ""
    """What it is for."""

    def weights(self) -> dict[str, float]:
        """Source name -> share of training tokens."""
        return {source.name: source.weight for source in self.sources}

    def local_names(self) -> set[str]:
        """What the user's own files may stand for."""
        return {name for source in self.sources for name in source.local_names()}

    def domains(self) -> dict[str, float]:
        """Domain -> share of training tokens."""
        shares: dict[str, float] = {}
        for source in self.sources:
            shares[source.domain] = shares.get(source.domain, 0.0) + source.weight
        return shares


def load_mixture(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Mixture:
    """Read a mixture by name (`math_code`) or path, with local data in place of the hub's.

    `overrides`: source name, or `source.part`, -> a path with rows in the source's own schema, a folder with a file or
    sub-folder per part, or a `documents` artifact (rows {"text": ...}, already rendered). A mapping instead of a path
    replaces keys of the part, such as {"path": ..., "render": {...}}.
    Raises InputError for an unknown key or name, weights that do not add up to 1 or 100, and duplicate names.
    """
    path = find("mixtures", name_or_path)
    raw = read_yaml(path)
    entries = raw.pop("sources", None)
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise InputError(f"{path}: `sources` must be a list with at least one source")
    sources = [_source(entry, f"{path}: sources[{number}]", path.parent) for number, entry in enumerate(entries)]
    raw.setdefault("name", path.stem)
    screen = raw.get("decontamination")
    if isinstance(screen, str) and _is_file_name(screen):
        raw["decontamination"] = str(path.parent / screen)
    mixture = build(Mixture, {**raw, "sources": _shares(sources, path)}, str(path))
    return with_local_data(mixture, overrides or {})


def find(kind: str, name_or_path: str | Path) -> Path:
    """The YAML file of a mixture, source or decontamination list given by name or path."""
    given = Path(name_or_path)
    if _is_file_name(given):
        if given.is_file():
            return given
        raise InputError(f"{given}: no such file")
    shipped = DATA_PREP / kind / f"{given}.yaml"
    if shipped.is_file():
        return shipped
    known = sorted(path.stem for path in (DATA_PREP / kind).glob("*.yaml"))
    raise InputError(
        f"no {kind.removesuffix('s')} {str(given)!r}{suggestion(str(given), known)}; known: {', '.join(known)}"
    )


def _is_file_name(name: str | Path) -> bool:
    """A file is given with its suffix, something shipped without."""
    return Path(name).suffix in (".yaml", ".yml")


def _source(entry: Any, where: str, folder: Path) -> Source:
    """A mixture's entry: {source: NAME, weight, ...} for one of data_prep/sources, or a source spelled out in place."""
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: expected a mapping with `source` or `name`, and `weight`")
    own = dict(entry)
    if "source" in own:
        named = own.pop("source")
        file = find("sources", folder / named if _is_file_name(named) else named)
        own = {"name": file.stem, **read_yaml(file), **own}
        where = f"{where} ({file.name})"
    known = {*_PART_KEYS, *(key.name for key in dataclasses.fields(Source))}
    for key in own:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{suggestion(str(key), known)}")
    if "weight" not in own:
        raise InputError(f"{where}: no `weight`")
    source: Source = build(Source, {**_split_parts(own, where), "weight": own["weight"]}, where)
    _check(source, where)
    return _relative_to(source, folder)


_PART_KEYS = tuple(key.name for key in dataclasses.fields(Part) if key.name != "name")


def _split_parts(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A source with a single part may give the part's keys directly."""
    loose = {key: value for key, value in raw.items() if key in _PART_KEYS}
    rest = {key: value for key, value in raw.items() if key not in _PART_KEYS}
    if "parts" not in rest:
        return {**rest, "parts": [loose]}
    if loose:
        raise InputError(f"{where}: {next(iter(loose))!r} belongs into one of the `parts`")
    return rest


def _relative_to(source: Source, folder: Path) -> Source:
    """Paths in a mixture file count from the file."""
    parts = tuple(
        dataclasses.replace(part, path=str(folder / part.path)) if part.path is not None else part
        for part in source.parts
    )
    return dataclasses.replace(source, parts=parts)


def _check(source: Source, where: str) -> None:
    if not source.name or not all(letter.isalnum() or letter in "_-." for letter in source.name):
        raise InputError(f"{where}: the name {source.name!r} may only have letters, digits, `_`, `-` and `.`")
    if source.weight <= 0:
        raise InputError(f"{where}: weight {source.weight} must be above 0; leave the source out instead")
    if source.max_epochs is not None and source.max_epochs <= 0:
        raise InputError(f"{where}: max_epochs {source.max_epochs} must be above 0")
    names = [part.name for part in source.parts]
    if len(set(names)) < len(names) or (len(names) > 1 and "" in names):
        raise InputError(f"{where}: each of the {len(names)} parts needs its own name")
    for part in source.parts:
        check_part(part, where)


def check_part(part: Part, where: str) -> None:
    """Raise InputError, with `where` it is written, for a part whose rows could not be rendered or filtered."""
    if part.render.kind not in RENDERS:
        raise InputError(f"{where}: no render kind {part.render.kind!r}{suggestion(part.render.kind, RENDERS)}")
    if (part.render.kind == "template") != bool(part.render.template):
        raise InputError(f"{where}: `kind: template` and a `template` belong together")
    if part.hub and "[" in part.hub.split:
        raise InputError(
            f"{where}: split {part.hub.split!r} is a slice; name a whole split, the budget decides the rest"
        )
    _check_template(part.render.template, where)
    for condition in part.where:
        try:
            condition.test()
            re.compile(condition.matches or "")
        except re.error as error:
            raise InputError(f"{where}: {condition.matches!r} is no regular expression ({error})") from None
        except InputError as error:
            raise InputError(f"{where}: {error}") from None


def _check_template(template: str, where: str) -> None:
    try:
        fields = [entry for entry in string.Formatter().parse(template) if entry[1] is not None]
    except ValueError as error:
        raise InputError(
            f"{where}: template {template!r}: {error}; write a brace of the text as {{{{ or }}}}"
        ) from None
    if any(not name or style or conversion for _, name, style, conversion in fields) or (template and not fields):
        raise InputError(f"{where}: template {template!r} may only hold text and columns, such as {{question}}")


def _shares(sources: list[Source], path: Path) -> list[Source]:
    """Weights as shares of 1; refuses anything else than a sum of 1 or of 100, and duplicate names."""
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: two sources are called {name!r}; give one another `name`")
    total = sum(source.weight for source in sources)
    for whole in (1.0, 100.0):
        if abs(total - whole) < 1e-6 * whole:
            return [dataclasses.replace(source, weight=source.weight / total) for source in sources]
    raise InputError(f"{path}: the weights add up to {total:g}; they must add up to 1 or to 100 (percent)")


def with_max_epochs(mixture: Mixture, limit: float) -> Mixture:
    """The mixture with one limit for every source. Raises InputError unless it is above 0."""
    sources = tuple(dataclasses.replace(source, max_epochs=limit) for source in mixture.sources)
    for source in sources:
        _check(source, f"mixture {mixture.name}")
    return dataclasses.replace(mixture, sources=sources)


def with_local_data(mixture: Mixture, overrides: Mapping[str, Any]) -> Mixture:
    """The mixture with sources read from elsewhere; see `load_mixture`."""
    known = mixture.local_names()
    for name in overrides:
        if name not in known:
            raise InputError(f"mixture {mixture.name} has no source {name!r}{suggestion(name, known)}")
    return dataclasses.replace(mixture, sources=tuple(_overridden(source, overrides) for source in mixture.sources))


def _overridden(source: Source, overrides: Mapping[str, Any]) -> Source:
    whole = overrides.get(source.name)
    if whole is not None and (isinstance(whole, Mapping) or len(source.parts) == 1 or _is_documents(Path(whole))):
        part = dataclasses.replace(source.parts[0], name="") if len(source.parts) > 1 else source.parts[0]
        return dataclasses.replace(source, parts=(_part_from(part, whole, source.name),))
    parts = []
    for part in source.parts:
        given = overrides.get(f"{source.name}.{part.name}")
        if given is None and whole is not None:
            given = _inside(Path(whole), part.name, source.name)
        parts.append(part if given is None else _part_from(part, given, source.name))
    return dataclasses.replace(source, parts=tuple(parts))


def _part_from(part: Part, given: Any, where: str) -> Part:
    if isinstance(given, Mapping):
        changes: Part = build(Part, given, f"override of {where}")
        changed = dataclasses.replace(part, **{key: getattr(changes, key) for key in given})
        check_part(changed, f"override of {where}")
        return changed
    if _is_documents(Path(given)):
        return Part(name=part.name, path=str(given))
    return dataclasses.replace(part, path=str(given))


def _inside(folder: Path, name: str, source: str) -> Path:
    """The file or sub-folder of a part."""
    if (folder / name).exists():
        return folder / name
    found = sorted(folder.glob(f"{name}.*"))
    if len(found) != 1:
        raise InputError(f"source {source} has several parts, and {folder} has no file or sub-folder {name!r}")
    return found[0]


def _is_documents(path: Path) -> bool:
    """Whether a folder is a `documents` artifact: rendered already, rows {"text": ...}."""
    manifest = path / "artifact.json"
    return manifest.is_file() and read_yaml(manifest).get("kind") == "documents"

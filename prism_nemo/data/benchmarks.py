"""What documents are checked against: `data_prep/decontamination/*.yaml`, lists of benchmarks.

An entry is the name of one of the evaluation's own definitions, `prism_nemo/evaluation/benchmarks/NAME.yaml`, read here
as data (hub, question and id columns), or a mapping that says where other items are.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prism_nemo.data.files import Unit, plan_pieces, source_files
from prism_nemo.data.mixture import Hub, Part, Render, check_part, find
from prism_nemo.data.render import BadRowError, FilteredError, Renderer
from prism_nemo.data.rows import Bad, read_rows
from prism_nemo.data.schema import build, read_yaml, suggestion
from prism_nemo.errors import InputError

DEFINITIONS = Path(__file__).resolve().parents[1] / "evaluation" / "benchmarks"


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark."""

    benchmark: str
    name: str
    """Its id, or file and row number where the benchmark has none."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmarks:
    """A benchmark list."""

    benchmarks: tuple[Part, ...]
    """Where each benchmark's items are, and what of a row is compared; `name` names the benchmark."""
    ngram: int = 13
    """Length of the runs of words that count as contamination (GPT-3 paper, appendix C)."""
    shortest: int = 8
    """Items with fewer words than `ngram` are compared as a whole, down to this many words; shorter ones not at all."""
    note: str = ""
    """What the list is for."""

    def items(self) -> list[Item]:
        """All items, read. Raises InputError when one cannot be read: a hole in the check must not go unseen."""
        return [item for part in self.benchmarks for item in _items(part)]


def load_benchmarks(name_or_path: str | Path, local: Mapping[str, Path] | None = None) -> Benchmarks:
    """Read a list by name (`data_prep/decontamination/NAME.yaml`) or path; paths in it count from the file.

    `local`: benchmark name -> file or folder to read instead.
    """
    path = find("decontamination", name_or_path)
    raw = read_yaml(path)
    entries = raw.get("benchmarks") or []
    raw["benchmarks"] = [_evaluated(entry, path) if isinstance(entry, str) else entry for entry in entries]
    lists: Benchmarks = build(Benchmarks, raw, str(path))
    if lists.ngram < 1 or not 1 <= lists.shortest <= lists.ngram:
        raise InputError(
            f"{path}: ngram {lists.ngram} and shortest {lists.shortest} must satisfy 1 <= shortest <= ngram"
        )
    names = [part.name for part in lists.benchmarks]
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"{path}: every benchmark needs a `name` of its own")
    for part in lists.benchmarks:
        check_part(part, f"{path}: {part.name}")
    for name in local or {}:
        if name not in names:
            raise InputError(f"{path} has no benchmark {name!r}{suggestion(name, names)}")
    return dataclasses.replace(lists, benchmarks=tuple(_placed(part, path, local or {}) for part in lists.benchmarks))


def _evaluated(name: str, file: Path) -> Part:
    """Where the questions of one of the evaluation's benchmarks are, from its definition."""
    path = DEFINITIONS / f"{name}.yaml"
    if not path.is_file():
        known = sorted(found.stem for found in DEFINITIONS.glob("*.yaml"))
        raise InputError(f"{file}: the evaluation has no benchmark {name!r}{suggestion(name, known)}")
    definition = read_yaml(path)
    columns = definition["columns"]
    hub = build(Hub, definition["hub"], f"{path}: hub")
    return Part(name=name, hub=hub, render=Render(column=columns["question"]), group=columns.get("id"))


def _placed(part: Part, file: Path, local: Mapping[str, Path]) -> Part:
    if part.name in local:
        return dataclasses.replace(part, path=str(local[part.name]))
    return part if part.path is None else dataclasses.replace(part, path=str(file.parent / part.path))


def _items(part: Part) -> list[Item]:
    root, names = source_files(f"benchmark {part.name}", part)
    render = Renderer(part, root)
    found = []
    for piece in plan_pieces(root, names, 1 << 40):
        unit = Unit(source=0, part=0, root=str(root), **piece)  # type: ignore[arg-type]
        for row in read_rows(unit, render.columns, lambda name, position: True):
            assert row is not None
            where = f"{Path(unit.root) / row.name}: line {row.line + 1}"
            if isinstance(row.content, Bad):
                raise InputError(f"{where} (benchmark {part.name}): {row.content.reason}")
            try:
                rendered = render(row.content)
                found.append(Item(part.name, rendered.group or f"{row.name}:{row.line + 1}", rendered.text))
            except FilteredError:
                continue
            except BadRowError as error:
                raise InputError(f"{where} (benchmark {part.name}): {error}") from None
    if not found:
        raise InputError(f"benchmark {part.name}: no item found in {root}")
    return found

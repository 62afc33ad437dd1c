"""Source files and how their reading is split into units of work, the same for any number of workers."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prism_nemo.data.mixture import Join, Mixture, Part
from prism_nemo.errors import InputError, missing_package

UNIT_BYTES = 64 << 20
GIVE_SOURCE = "give its path with --source NAME=PATH (in a recipe data.sources.NAME=PATH)"
GIVE_BENCHMARK = (
    "give its path with --benchmark NAME=PATH (in a recipe data.benchmarks.NAME=PATH), or check nothing with "
    "--no-decontaminate (data.decontaminate=false)"
)
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".jsonl.gz": "gz",
    ".json.gz": "gz",
    ".jsonl.zst": "zst",
    ".json.zst": "zst",
    ".jsonl.zstd": "zst",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
UNREADABLE = (
    *(".csv", ".tsv", ".xlsx", ".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip", ".tar", ".tgz", ".7z", ".pq", ".orc"),
    *(".avro", ".feather", ".pkl", ".pt", ".npy", ".npz", ".safetensors", ".bin", ".idx", ".pdf", ".docx"),
)
"""Suffixes of tables, archives and binary files: unless `SUFFIXES` has them, they must not pass for plain text."""
NOT_ROWS = (
    *("artifact.json", "report.json"),
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
)
"""What this program and `datasets` write beside the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A stretch of one file (or, for plain text, some files of a folder) that one worker reads in one go."""

    source: int
    """Index of the source in the mixture."""
    part: int
    """Index of the part in the source."""
    kind: str
    """jsonl, gz, zst, parquet, arrow or text."""
    root: str
    """Folder that `names` count from."""
    names: tuple[str, ...]
    """The file, or the text files."""
    start: int
    """First byte (jsonl) or row group (parquet)."""
    end: int
    """One past the last."""
    bytes: int
    """Bytes to read, for progress."""

    @property
    def path(self) -> Path:
        """The file it reads (the first one of a text folder)."""
        return Path(self.root) / self.names[0]


def plan_units(mixture: Mixture, unit_bytes: int = UNIT_BYTES) -> list[Unit]:
    """All units of a mixture in a fixed order: sources, parts and files by name, stretches by position.

    Raises InputError for a source without local data, a missing file, and an unreadable parquet file.
    """
    units = []
    for number, source in enumerate(mixture.sources):
        for index, part in enumerate(source.parts):
            label = f"source {source.name}" + (f".{part.name}" if part.name else "")
            root, names = source_files(label, part)
            units += [
                Unit(source=number, part=index, root=str(root), **piece)  # type: ignore[arg-type]
                for piece in plan_pieces(root, names, unit_bytes)
            ]
    return units


def source_files(label: str, part: Part) -> tuple[Path, list[str]]:
    """The folder and the file names (relative to it, sorted) of a part; downloads a hub data set first.

    `label` names it in errors. Raises InputError when there is nothing to read.
    """
    if part.path is None:
        return _from_hub(label, part)
    if glob.has_magic(part.path):
        found = sorted(Path(name) for name in glob.glob(part.path, recursive=True) if Path(name).is_file())  # noqa: PTH207
        if not found:
            raise InputError(f"{label}: no file matches {part.path}")
        root = Path(os.path.commonpath([path.parent for path in found]))
        return root, _need_readable(label, root, [str(path.relative_to(root)) for path in found])
    path = Path(part.path)
    if path.is_file():
        return path.parent, _need_readable(label, path.parent, [path.name])
    if not path.is_dir():
        raise InputError(f"{label}: {path} does not exist")
    return path, _in_folder(path, label, part)


def _in_folder(folder: Path, label: str, part: Part) -> list[str]:
    """The data files of a folder; when it has none, every file is a plain-text document."""
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not any(word.startswith(".") for word in path.relative_to(folder).parts)
    )
    table = table_path(folder, part.join).name if part.join else None
    data = [name for name in names if file_kind(name) and name != table and Path(name).name not in NOT_ROWS]
    if not (data or names):
        raise InputError(f"{label}: the folder {folder} holds no file")
    return data or _need_readable(label, folder, names)


def _need_readable(label: str, root: Path, names: list[str]) -> list[str]:
    """The names; InputError for a file that is neither rows of a known format nor plain text."""
    for name in names:
        if file_kind(name) is None and name.lower().endswith(UNREADABLE):
            raise InputError(
                f"{label}: {root / name} is of no known format; give {', '.join(sorted(SUFFIXES))} or plain text"
            )
    return names


def table_path(folder: Path, join: Join) -> Path:
    """The file of a join's table. Raises InputError when it is not there."""
    found = [folder / join.table] if (folder / join.table).is_file() else sorted(folder.glob(f"{join.table}.*"))
    if len(found) != 1:
        columns = ", ".join((*join.by, join.column))
        raise InputError(f"{folder} needs one table {join.table!r} (jsonl or parquet) with the columns {columns}")
    return found[0]


def file_kind(name: str) -> str | None:
    """How a file is read, by its suffix; None for one that is not a known table of rows."""
    lower = Path(name).name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if lower.endswith(suffix):
            return SUFFIXES[suffix]
    return None


def _from_hub(label: str, part: Part) -> tuple[Path, list[str]]:
    """Arrow files of a hub data set in the local cache, downloaded when needed."""
    give = GIVE_BENCHMARK if label.startswith("benchmark ") else GIVE_SOURCE
    if part.hub is None:
        raise InputError(f"{label} needs a local path{': ' + part.note if part.note else ''}; {give}")
    try:
        import datasets
    except ImportError:
        raise missing_package("datasets", f"{label} (a hub data set)", "pip install datasets") from None
    try:
        table = datasets.load_dataset(
            part.hub.id, part.hub.config, split=part.hub.split, data_dir=part.hub.data_dir, trust_remote_code=None
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{label}: {part.hub.id} cannot be loaded from the hub ({reason}); download it and {give}"
        ) from None
    found = sorted(Path(entry["filename"]) for entry in table.cache_files)
    if not found:
        raise InputError(f"{label}: {part.hub.id} has no rows in split {part.hub.split}")
    root = Path(os.path.commonpath([path.parent for path in found]))
    return root, [str(path.relative_to(root)) for path in found]


def plan_pieces(root: Path, names: list[str], unit_bytes: int) -> Iterator[dict[str, object]]:
    """Fields of the units that read these files: kind, names, start, end, bytes."""
    texts: list[str] = []
    for name in names:
        kind = file_kind(name)
        if kind is None:
            texts.append(name)
        elif kind == "jsonl":
            yield from _byte_ranges(root, name, unit_bytes)
        elif kind == "parquet":
            yield from _row_groups(root, name, unit_bytes)
        else:  # a compressed or arrow stream is read from its beginning
            size = (root / name).stat().st_size
            yield {"kind": kind, "names": (name,), "start": 0, "end": 0, "bytes": size}
    yield from _text_groups(root, texts, unit_bytes)


def _byte_ranges(root: Path, name: str, unit_bytes: int) -> Iterator[dict[str, object]]:
    size = (root / name).stat().st_size
    for start in range(0, max(size, 1), unit_bytes):
        end = min(start + unit_bytes, size)
        yield {"kind": "jsonl", "names": (name,), "start": start, "end": end, "bytes": end - start}


def _row_groups(root: Path, name: str, unit_bytes: int) -> Iterator[dict[str, object]]:
    import pyarrow
    from pyarrow import parquet

    try:
        meta = parquet.read_metadata(root / name)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{root / name} is not a whole parquet file ({error}); fetch it again") from None
    start, size = 0, 0
    for index in range(meta.num_row_groups):
        size += meta.row_group(index).total_byte_size
        if size >= unit_bytes or index == meta.num_row_groups - 1:
            yield {"kind": "parquet", "names": (name,), "start": start, "end": index + 1, "bytes": size}
            start, size = index + 1, 0


def _text_groups(root: Path, names: list[str], unit_bytes: int) -> Iterator[dict[str, object]]:
    group: list[str] = []
    size = 0
    for name in names:
        group.append(name)
        size += (root / name).stat().st_size
        if size >= unit_bytes or len(group) == 4096:
            yield {"kind": "text", "names": tuple(group), "start": 0, "end": len(group), "bytes": size}
            group, size = [], 0
    if group:
        yield {"kind": "text", "names": tuple(group), "start": 0, "end": len(group), "bytes": size}

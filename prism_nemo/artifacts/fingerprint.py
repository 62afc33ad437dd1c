"""Fingerprints: of parameters (canonical JSON) and of files and folders (xxh3_128 of their bytes)."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

CHUNK = 1 << 20


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no blanks, dataclasses as objects, paths as text, tuples as lists.

    Raises TypeError for a value that has no JSON form (a function, an open file): it could not be compared later.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"no fingerprint for a {type(value).__name__}: {value!r}")


def fingerprint(value: Any) -> str:
    """xxh3_128 (32 hex digits) of the canonical JSON of `value`."""
    return xxhash.xxh3_128_hexdigest(canonical(value).encode())


class _Nothing:
    """What stands for a key that is not there, which is something else than null."""

    def __repr__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


def changed(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """The innermost values in which two JSON values differ, such as `mixture.sources.0.weight: 0.5 -> 0.4`."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [(str(key), old.get(key, _NOTHING), new.get(key, _NOTHING)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [(str(number), *pair) for number, pair in enumerate(zip(old, new, strict=True))]
    else:
        if old != new:
            yield f"{where}: {old!r} -> {new!r}"
        return
    for name, before, after in parts:
        yield from changed(before, after, f"{where}.{name}" if where else name)


def file_hash(path: Path) -> str:
    """xxh3_128 (32 hex digits) of a file's bytes, read in pieces."""
    digest, piece = xxhash.xxh3_128(), memoryview(bytearray(CHUNK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()


def tree_hashes(folder: Path, known: Mapping[Path, str] | None = None) -> dict[Path, str]:
    """Relative path -> hash of every file that `tree_files` finds; `known` has those (by whole path) to be taken."""
    names, known = tree_files(folder), known or {}
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 8)) as pool:
        marks = pool.map(lambda name: known.get(folder / name) or file_hash(folder / name), names)
        return dict(zip(names, marks, strict=True))


def tree_files(folder: Path) -> list[Path]:
    """Every regular file under `folder`, relative to it, sorted; artifact manifests are left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "artifact.json")
    return sorted(path.relative_to(folder) for path in found)


def path_fingerprint(path: Path) -> str:
    """Of an artifact: the hashes in its manifest; of another folder: names and bytes; of a file: its bytes."""
    if path.is_file():
        return file_hash(path)
    manifest = path / "artifact.json"
    if manifest.is_file():
        files = json.loads(manifest.read_text())["files"]
        return fingerprint({name: entry["xxh3_128"] for name, entry in files.items()})
    return fingerprint({str(name): mark for name, mark in tree_hashes(path).items()})

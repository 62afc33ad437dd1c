"""Rows of a local benchmark file, each with the place it came from."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError

ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


def read_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(place, row) of a JSONL, JSON list, CSV or Parquet file, or of all such files of a folder in order of name.

    Raises InputError for a missing file, an unknown ending, a file that cannot be read, or a row that is no
    object.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS)
        if not files:
            raise InputError(f"{path} holds no {', '.join(ENDINGS)} file")
        return [row for file in files for row in read_rows(file)]
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a local copy of the benchmark")
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: known endings are {', '.join(ENDINGS)}")
    try:
        found = list(_rows(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from None
    for place, row in found:
        if not isinstance(row, dict):
            raise InputError(f"{place}: expected an object, got {row!r:.60}")
    return found


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(path).to_pylist()
        except pa.ArrowException as error:
            raise InputError(f"{path} is no Parquet file ({str(error).splitlines()[0]})") from None
        yield from ((f"{path}[{i}]", row) for i, row in enumerate(rows))
    elif path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            yield from ((f"{path}[{i}]", row) for i, row in enumerate(csv.DictReader(file)))
    elif path.suffix == ".json":
        rows = _json(path.read_text(encoding="utf-8"), str(path))
        if not isinstance(rows, list):
            raise InputError(f"{path}: expected a list of objects")
        yield from ((f"{path}[{i}]", row) for i, row in enumerate(rows))
    else:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", _json(line, f"{path}:{number}")


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{place}: no JSON ({error})") from None

"""Rows to documents: the filter, the join and the rendering of a part, compiled once and applied to every row.

The paper (section 3.1): reasoning data is question, one line break, answer; chat turns carry `User:` and `Assistant:`.
"""

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_nemo.data.files import Unit, file_kind, table_path
from prism_nemo.data.mixture import Condition, Join, Part, Render
from prism_nemo.data.rows import Bad, read_rows
from prism_nemo.errors import InputError

USER = ("user", "human")
ASSISTANT = ("assistant", "gpt")
SYSTEM = ("system",)


class BadRowError(Exception):
    """A row that cannot be rendered; the message is the reason that the quarantine records."""


class FilteredError(Exception):
    """A row that the part's filter leaves out; the message names the condition."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A document."""

    text: str
    group: str | None
    """Equal for documents that must stay on one side of the train/valid split; None: only itself."""


class Renderer:
    """Callable on a row; raises FilteredError or BadRowError. `columns` are those it reads."""

    def __init__(self, part: Part, folder: Path) -> None:
        self._text = _renderer(part.render)
        self._keep = [(condition, _test(condition)) for condition in part.where]
        self._group = part.group
        self._join = part.join
        self._table = _table(part.join, folder) if part.join else {}
        columns = [*_render_columns(part.render), *(condition.column for condition in part.where)]
        columns += list(part.join.by) if part.join else []
        columns += [part.group] if part.group else []
        joined = part.join.column if part.join else None
        self.columns = tuple(dict.fromkeys(column for column in columns if column != joined))

    def __call__(self, row: Mapping[str, Any]) -> Rendered:
        for condition, passes in self._keep:
            if not passes(_present(row, condition.column)):
                raise FilteredError(f"{condition.column} {condition.test()} {getattr(condition, condition.test())}")
        if self._join:
            row = {**row, self._join.column: self._joined(row)}
        text, question = self._text(row)
        if not text or text.isspace():
            raise BadRowError("empty after rendering")
        return Rendered(text, question if self._group is None else str(_present(row, self._group)))

    def _joined(self, row: Mapping[str, Any]) -> str:
        assert self._join is not None
        key = tuple(str(_present(row, column)) for column in self._join.by)
        if key not in self._table:
            raise BadRowError(f"not in the table {self._join.table}: {', '.join(key)}"[:200])
        return self._table[key]


def _present(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise BadRowError(f"missing key {column!r}")
    if row[column] is None:
        raise BadRowError(f"null in {column!r}")
    return row[column]


def _string(row: Mapping[str, Any], column: str) -> str:
    value = _present(row, column)
    if not isinstance(value, str):
        raise BadRowError(f"wrong type in {column!r}: {type(value).__name__}, not text")
    return value


def _test(condition: Condition) -> Callable[[Any], bool]:
    name = condition.test()
    wanted = getattr(condition, name)
    if name == "equals":
        return lambda value: _same(value, wanted)
    if name == "not_equals":
        return lambda value: not _same(value, wanted)
    if name == "one_of":
        return lambda value: any(_same(value, entry) for entry in wanted)
    if name == "at_least":
        return lambda value: _number(value, condition.column) >= wanted
    if name == "at_most":
        return lambda value: _number(value, condition.column) <= wanted
    pattern = re.compile(wanted)
    return lambda value: pattern.search(str(value)) is not None


def _same(value: Any, wanted: Any) -> bool:
    """Equal; a number also equals its text form, since published sets store pass rates and the like as text."""
    if isinstance(value, str) and isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
        try:
            return float(value) == wanted
        except ValueError:
            return False
    return bool(value == wanted)


def _number(value: Any, column: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise BadRowError(f"wrong type in {column!r}: {value!r} is no number"[:200]) from None


def _render_columns(render: Render) -> list[str]:
    if render.kind == "template":
        return [name for _, name, _, _ in string.Formatter().parse(render.template) if name]
    return [render.column]


def _renderer(render: Render) -> Callable[[Mapping[str, Any]], tuple[str, str | None]]:
    """Row -> text, and the question where the text is an answer to one."""
    if render.kind == "text":
        return lambda row: (_string(row, render.column), None)
    if render.kind == "template":
        return lambda row: (_fill(render.template, row), None)
    if render.kind == "chat":
        return lambda row: (_chat(_turns(row, render)), None)
    return lambda row: _answer(_turns(row, render))


def _fill(template: str, row: Mapping[str, Any]) -> str:
    parts = []
    for literal, name, _, _ in string.Formatter().parse(template):
        parts += [literal, _string(row, name) if name else ""]
    return "".join(parts)


def _turns(row: Mapping[str, Any], render: Render) -> list[tuple[str, str]]:
    """(role, words) of every turn; the roles are user, assistant and system."""
    turns = _present(row, render.column)
    if not isinstance(turns, list):
        raise BadRowError(f"wrong type in {render.column!r}: {type(turns).__name__}, not a list of turns")
    found = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise BadRowError(f"wrong type in {render.column!r}: a turn is {type(turn).__name__}, not a mapping")
        found.append((_role(_string(turn, render.role)), _string(turn, render.content)))
    return found


def _role(name: str) -> str:
    for role, names in (("user", USER), ("assistant", ASSISTANT), ("system", SYSTEM)):
        if name in names:
            return role
    raise BadRowError(f"unknown role {name!r}"[:200])


def _chat(turns: list[tuple[str, str]]) -> str:
    """`User:` / `Assistant:` lines; system turns, which the paper does not render, are left out."""
    prefixes = {"user": "User: ", "assistant": "Assistant: "}
    spoken = [(role, words) for role, words in turns if role != "system"]
    _need_answer(spoken)
    return "\n".join(prefixes[role] + words for role, words in spoken)


def _answer(turns: list[tuple[str, str]]) -> tuple[str, str]:
    """Question, one line break, answer; further turns follow in the same way. And the question alone."""
    spoken = [(role, words) for role, words in turns if role != "system"]
    _need_answer(spoken)
    return "\n".join(words for _, words in spoken), spoken[0][1]


def _need_answer(spoken: list[tuple[str, str]]) -> None:
    if not any(role == "assistant" and words.strip() for role, words in spoken):
        raise BadRowError("empty after rendering: no answer")


def _table(join: Join, folder: Path) -> dict[tuple[str, ...], str]:
    """The join's table in memory: key columns, as text -> the column it supplies."""
    path = table_path(folder, join)
    columns = (*join.by, join.column)
    table: dict[tuple[str, ...], str] = {}
    for unit in _whole_file(path):
        for row in read_rows(unit, columns, lambda name, position: True):
            if row is None or isinstance(row.content, Bad):
                reason = "" if row is None else f": line {row.line + 1}: {row.content.reason}"  # type: ignore[union-attr]
                raise InputError(f"{path}{reason}")
            try:
                key = tuple(str(_present(row.content, column)) for column in join.by)
                table[key] = _string(row.content, join.column)
            except BadRowError as error:
                raise InputError(f"{path}: line {row.line + 1}: {error}") from None
    return table


def _whole_file(path: Path) -> list[Unit]:
    kind = file_kind(path.name)
    if kind is None:
        raise InputError(f"{path}: a join table must be jsonl, jsonl.gz, jsonl.zst, parquet or arrow")
    end = path.stat().st_size
    if kind == "parquet":
        from pyarrow import parquet

        end = parquet.read_metadata(path).num_row_groups
    names = (path.name,)
    return [Unit(source=0, part=0, kind=kind, root=str(path.parent), names=names, start=0, end=end, bytes=0)]

"""What a report is made of, before it is HTML or Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Mark = Literal["", "gain", "loss", "unclear", "absent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A table cell with a verdict. The mark colours it; the text says it too."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    text_columns: int = 1
    """How many columns from the left hold words; the others are aligned as numbers."""
    note: str = ""
    folded: bool = False
    """Opens on request."""

    @property
    def cells(self) -> list[list[Cell]]:
        return [[cell if isinstance(cell, Cell) else Cell(text=cell) for cell in row] for row in self.rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An entry of a legend: what a colour (a CSS variable of the page) and a stroke stand for."""

    text: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One drawing, small enough for a phone."""

    title: str
    svg: str
    says: str
    """For those who cannot see it: what is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One or more panels with a legend and one sentence on how to read them."""

    title: str
    panels: Sequence[Panel]
    reading: str
    legend: Sequence[Key] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A part that the run does not have."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A long text that opens on request."""

    title: str
    text: str


Block = Table | Figure | Text | Missing | Folded


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    name: str
    """For links: unique on the page."""
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
    short: str = ""
    """In the list of sections; empty: the title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """A number worth large type."""

    label: str
    value: str
    small: str
    role: str
    """Its colour, a CSS variable of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What a reader should know first."""

    stats: Sequence[Stat]
    caption: str
    sentences: Sequence[str]

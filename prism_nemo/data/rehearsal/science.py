"""Multiple-choice questions made from small tables of public facts: the lighter elements, SI units, constants."""

import csv
import functools
import random
from pathlib import Path

from prism_nemo.data.rehearsal.worked import Worked

LETTERS = "ABCD"
HEAVIEST = 36
"""Atomic number of the last element asked about; a pico model learns these four periods, not all seven."""


@functools.cache
def _table(name: str) -> list[dict[str, str]]:
    with open(Path(__file__).parent / f"{name}.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if int(row.get("number", 0)) <= HEAVIEST]


FACTS = (
    # table, column asked about, column of the answer, the question, how often relative to the others
    ("elements", "name", "symbol", "Symbol of {}?", 3),
    ("elements", "symbol", "name", "Element {}?", 2),
    ("elements", "name", "period", "Period of {}?", 2),
    ("units", "quantity", "name", "SI unit of {}?", 2),
    ("constants", "name", "symbol", "Symbol of {}?", 1),
)


def draw(rng: random.Random) -> Worked:
    """One random question with four options, in order, one of them right."""
    table, asked, answered, question, _ = rng.choices(FACTS, weights=[fact[-1] for fact in FACTS])[0]
    rows = _table(table)
    row = rng.choice(rows)
    right = row[answered]
    others = rng.sample(sorted({other[answered] for other in rows} - {right}), 3)
    options = sorted([right, *others])
    letter = LETTERS[options.index(right)]
    marked = ", ".join(f"{option} ({mark})" for mark, option in zip(LETTERS, options, strict=True))
    words = f"{question.format(row[asked])} {marked}"
    return Worked(domain="science", question=words, thought=f"{right} ({letter})", answer=letter)

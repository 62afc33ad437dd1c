"""The paper's own numbers for the analyses (section 10, tables 12-15, 22, 23, figures 12, 13, 16, 27).

Units as printed: shares, pass rates in percent; L2, cosine and CKA as fractions; lengths in tokens.
"""

import functools
import importlib.resources
import json
from collections.abc import Callable
from typing import Any

from prism_nemo.errors import InputError

MEASURED_ON = "math500"
"""The benchmark of table 15 and figure 13 (section 10.3: 200 of its problems, 8 samples each)."""


@functools.cache
def _records() -> list[dict[str, Any]]:
    source = importlib.resources.files("prism_nemo.analysis") / "paper_analyses.json"
    return list(json.loads(source.read_text()))


def covered(model: str) -> bool:
    """Whether the paper's analyses have this model; a recipe's name of it does as well."""
    return _written(model) in {record["model"] for record in _records()}


def _written(model: str) -> str:
    return model.replace("_", "-").replace("-3-3-", "-3.3-").replace("-3-1-", "-3.1-")


def paper_rows(model: str, tables: tuple[str, ...]) -> list[dict[str, Any]]:
    """The records of one of the paper's models. Raises InputError for a model the analyses do not cover."""
    known = sorted({record["model"] for record in _records()})
    wanted = _written(model)
    if wanted not in known:
        raise InputError(f"the paper's analyses do not cover {model!r}; they cover {', '.join(known)}")
    return [record for record in _records() if record["model"] == wanted and record["table"] in tables]


def beside(
    model: str, tables: tuple[str, ...], ours: Callable[[dict[str, Any]], dict[str, float | None] | None]
) -> list[dict[str, Any]]:
    """The paper's records with ours next to them; `ours` gives our figures for a record, or None when we have none."""
    rows = []
    for record in paper_rows(model, tables):
        found = ours(record)
        if found is not None:
            where = {key: record[key] for key in ("table", "stage", "mixture", "benchmark")}
            rows.append(where | {"paper": record["value"]} | found | {"note": record["note"]})
    return rows

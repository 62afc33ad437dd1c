"""How much of each source has to be read closely: stretches of the random draw, widened until the budget is met.

A source far larger than its budget is not tokenized whole: only rows whose draw key lies below a bound are parsed. The
bound comes from a sample; when it proves too low, the next stretch of keys follows. Either way the rows with the
smallest keys are drawn for training. Which groups are held out is decided among the rows that were read: with
`valid_tokens` or `test_tokens`, another bound may hold out other documents.
"""

from collections.abc import Callable, Sequence

import numpy as np

from prism_nemo.data.assemble import Shard
from prism_nemo.data.draw import FULL
from prism_nemo.data.files import Unit
from prism_nemo.data.mixture import Mixture
from prism_nemo.data.sample import Estimate, has_limit
from prism_nemo.data.select import Budget, duplicates
from prism_nemo.data.shard import CLEAN

MARGIN = 1.15
WHOLE = 0.6

Make = Callable[[list[tuple[Unit, int, int]]], list[Shard]]
"""Makes the shards of (unit, low, high) stretches."""


def first_bounds(mixture: Mixture, estimates: Sequence[Estimate | None], budgets: Sequence[Budget]) -> list[int]:
    """The upper draw key of each source's first stretch, 2^64 for the whole source (also when its size is unknown)."""
    return [
        FULL if estimate is None or has_limit(source.parts) else _bound(MARGIN * budget.total / estimate.tokens)
        for source, estimate, budget in zip(mixture.sources, estimates, budgets, strict=True)
    ]


def _bound(fraction: float) -> int:
    return FULL if fraction > WHOLE else int(fraction * FULL)


def read_enough(units: Sequence[Unit], bounds: list[int], budgets: Sequence[Budget], make: Make) -> list[Shard]:
    """Shards of all sources, in the order of units and stretches, with enough clean tokens or the whole source."""
    low = [0] * len(bounds)
    made: dict[tuple[int, int], Shard] = {}
    while any(first < last for first, last in zip(low, bounds, strict=True)):
        wanted = [number for number, unit in enumerate(units) if low[unit.source] < bounds[unit.source]]
        stretches = [(units[n], low[units[n].source], bounds[units[n].source]) for n in wanted]
        for number, shard in zip(wanted, make(stretches), strict=True):
            made[number, shard.low] = shard
        shards = [made[place] for place in sorted(made)]
        low = list(bounds)
        bounds = _widened(shards, bounds, budgets)
    return [made[place] for place in sorted(made)]


def _widened(shards: Sequence[Shard], bounds: list[int], budgets: Sequence[Budget]) -> list[int]:
    """The bounds of the next stretches: higher for sources that are short of tokens."""
    if all(bound == FULL for bound in bounds):
        return bounds
    tables = [shard.records() for shard in shards]
    repeated = np.split(duplicates(np.concatenate(tables)), np.cumsum([len(table) for table in tables])[:-1])
    have = [0] * len(bounds)
    for shard, table, again in zip(shards, tables, repeated, strict=True):
        clean = (table["state"] == CLEAN) & ~again
        have[shard.unit.source] += int(table["tokens"][clean].sum(dtype=np.int64))
    return [
        bound if bound == FULL or tokens >= budget.total else _bound(bound / FULL * MARGIN * _factor(budget, tokens))
        for bound, tokens, budget in zip(bounds, have, budgets, strict=True)
    ]


def _factor(budget: Budget, tokens: int) -> float:
    return max(1.25, budget.total / max(tokens, 1))

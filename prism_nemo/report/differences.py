"""How two arms differ, and whether the data can tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["up", "down", "unclear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`to` minus `from`, with its 95 % interval."""

    value: float
    low: float
    high: float
    paired: bool
    """Question by question, or document by document; otherwise the outer bounds of the arms' own intervals, which is
    careful."""

    @property
    def direction(self) -> Direction:
        """`unclear` when the interval holds zero."""
        return "up" if self.low > 0 else "down" if self.high < 0 else "unclear"


def score_difference(scores: Mapping[str, Any] | None, start: str, end: str, domain: str) -> Difference | None:
    """Between two arms, of a benchmark, a domain, avg3, avg6 or `mean`: the paired one if it was measured; None when an
    arm has not got it."""
    if scores is None:
        return None
    if (found := _written(scores, start, end, domain)) is not None:
        return found
    before, after = (_estimate(scores, arm, domain) for arm in (start, end))
    return _unpaired(before, after, "avg") if before and after else None


def retention_difference(scores: Mapping[str, Any] | None, start: str, end: str) -> Difference | None:
    """Of the loss on held-out general text: up is forgetting."""
    if scores is None:
        return None
    if (found := _written(scores, start, end, "retention")) is not None:
        return found
    losses = scores.get("retention") or {}
    return _unpaired(losses[start], losses[end], "loss") if start in losses and end in losses else None


def context_difference(report: Mapping[str, Any] | None, start: str, end: str) -> Difference | None:
    """How much worse or better `end` uses a long context than `start`, from the long-context analysis.

    RULER at the longest length, a fraction of 1 (up is better). In a rehearsal the loss in the last stretch of a
    document minus that in the first, nats per token (up is worse): by that much what lies far back does not help.
    """
    points = (report or {}).get("points", {})
    if start not in points or end not in points:
        return None
    before, after = points[start], points[end]
    if "ruler" in before:
        asked = len((report or {})["lengths"])
        whole = len(before["ruler"]) == len(after["ruler"]) == asked  # a point may not reach the longest length
        return _unpaired(before["ruler"][-1], after["ruler"][-1], "value") if whole else None
    return _paired_slopes(before, after) or _unpaired(_slope(before), _slope(after), "value")


def _slope(point: Mapping[str, Any]) -> dict[str, float]:
    first, last = (point["positions"][k]["loss"] for k in (0, -1))
    return {
        "value": last["value"] - first["value"],
        "low": last["low"] - first["high"],
        "high": last["high"] - first["low"],
    }


def _paired_slopes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference | None:
    """Document by document, where the analysis kept their losses: (stretches, documents) nats per token."""
    if "documents" not in before or "documents" not in after:
        return None
    import numpy as np

    from prism_nemo.evaluation.statistics import mean_interval

    old, new = (np.asarray(point["documents"]) for point in (before, after))
    found = mean_interval((new[-1] - new[0]) - (old[-1] - old[0]))
    return Difference(value=found.value, low=found.low, high=found.high, paired=True)


def _written(scores: Mapping[str, Any], start: str, end: str, domain: str) -> Difference | None:
    for entry in scores.get("differences") or ():
        if entry["domain"] != domain or {entry["from"], entry["to"]} != {start, end}:
            continue
        value, low, high, paired = entry["difference"], entry["low"], entry["high"], bool(entry.get("paired"))
        if entry["from"] == start:
            return Difference(value=value, low=low, high=high, paired=paired)
        return Difference(value=-value, low=-high, high=-low, paired=paired)
    return None


def _estimate(scores: Mapping[str, Any], arm: str, domain: str) -> Mapping[str, Any] | None:
    return score_of(scores.get("arms", {}).get(arm, {}), domain)


def score_of(arm: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """An arm's benchmark, domain or average by its name in `scores.json`, which has each name once."""
    found: Mapping[str, Any] | None = {**arm.get("benchmarks", {}), **arm.get("domains", {}), **arm}.get(name)
    return found


def _unpaired(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> Difference:
    return Difference(
        value=after[key] - before[key],
        low=after["low"] - before["high"],
        high=after["high"] - before["low"],
        paired=False,
    )

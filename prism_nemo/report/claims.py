"""Which of the paper's claims show in a run (arXiv 2603.17074). Every verdict is computed from the run's own figures.

Scores of a pico model cannot be set beside those of an 8B: only directions can.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prism_nemo.report import words
from prism_nemo.report.differences import Difference, context_difference, retention_difference, score_difference
from prism_nemo.report.run import Run

Verdict = Literal["shows", "opposite", "not clear", "not measured"]
NEARLY_ALL = 0.9
"""Share of weights changed by more than 1 % that the paper calls nearly all: "over 90%" (section 10.1)."""
SAME_GEOMETRY = 0.998
"""CKA above which the paper finds the representations of MT and RL the same at every layer (section 10.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim, what the paper measured, and what this run did."""

    claim: str
    paper: str
    ours: str
    verdict: Verdict


def claims(run: Run) -> list[Claim]:
    """Every claim that a run of this chain can test, in the order of the chain."""
    scores = run.scores
    return [
        _score(
            "Mid-training lifts math", "+16.7 to +40.7 points, all seven models (Table 6)", scores, "base", "mt", "math"
        ),
        _score(
            "Mid-training lifts code", "+5.7 to +11.0 points, all seven models (Table 6)", scores, "base", "mt", "code"
        ),
        _score(
            "Mid-training with science data lifts science",
            "−2.9 to +27.8 points; up in five of seven models (Table 6)",
            scores,
            "base",
            "mt",
            "science",
        ),
        _score(
            "RL lifts the mid-trained model further",
            "+8.6 to +10.7 points on average with the MCS mixture (Table 11)",
            scores,
            "mt",
            "rl",
            "mean",
        ),
        _score(
            "Mid-training lifts what RL alone cannot: MT is above base + RL",
            "Granite-3.3, MATH500: 81.1 against 36.7 (Table 6, project page)",
            scores,
            "rl_base",
            "mt",
            "mean",
        ),
        _score(
            "RL works better after mid-training: MT + RL is above base + RL",
            "Granite-3.3, GPQA-Diamond: 51.5 against 29.8 (project page)",
            scores,
            "rl_base",
            "rl",
            "mean",
        ),
        _leaderboards(run.analyses["retention"]) if "retention" in run.analyses else _retention(scores),
        *_long_context(run.analyses.get("long_context")),
        *_weights(run.analyses.get("weights")),
        *_geometry(run.analyses.get("cka")),
        _length(scores),
    ]


def _score(claim: str, paper: str, scores: Any, start: str, end: str, domain: str) -> Claim:
    found = score_difference(scores, start, end, domain)
    if found is None:
        return _absent(claim, paper)
    unit = f"{words.points(found.value)} points {words.interval(found.low, found.high)}"
    return Claim(claim=claim, paper=paper, ours=unit + _kind(found), verdict=_rising(found))


def _rising(found: Difference) -> Verdict:
    answers: Mapping[str, Verdict] = {"up": "shows", "down": "opposite", "unclear": "not clear"}
    return answers[found.direction]


def _kind(found: Difference) -> str:
    return "" if found.paired else ", not paired"


def _retention(scores: Any) -> Claim:
    claim = "Mid-training keeps general ability: the loss on held-out general text does not rise"
    paper = "leaderboard averages −5.5 to +7.4 points, about flat (Table 6)"
    found = retention_difference(scores, "base", "mt")
    if found is None:
        return _absent(claim, paper)
    ours = f"{found.value:+.3f} nats per token [{found.low:+.3f}, {found.high:+.3f}]".replace("-", "−")
    return Claim(claim=claim, paper=paper, ours=ours + _kind(found), verdict=_falling(found))


def _leaderboards(report: Mapping[str, Any]) -> Claim:
    claim = "Mid-training keeps general ability: the leaderboards' averages do not fall"
    paper = "−5.5 to +7.4 points, about flat (Table 6)"
    rows = {row["name"]: row for row in report["tasks"] if row["arm"] == "mt"}
    averages = [row for name, row in rows.items() if name.endswith("_avg")]
    if not averages:
        return _absent(claim, paper)
    said = [
        f"{row['name']} {words.points(row['difference']['value'])} "
        f"{words.interval(row['difference']['low'], row['difference']['high'])}"
        for row in averages
    ]
    lost = [name for name, row in rows.items() if row["lost"] and row not in averages]
    said.append(f"real losses: {', '.join(lost) or 'none'}")
    risen = all(row["difference"]["low"] > 0 for row in averages)
    verdict: Verdict = "opposite" if any(row["lost"] for row in averages) else "shows" if risen else "not clear"
    return Claim(claim=claim, paper=paper, ours="; ".join(said), verdict=verdict)


def _long_context(report: Mapping[str, Any] | None) -> list[Claim]:
    costs = (
        "Mid-training at the short length costs the use of long context",
        "RULER at 128k: 59.1 to 6.5 (Table 7)",
    )
    back = (
        "Merge and long-context training give it back, at least in part",
        "RULER at 128k: 6.5 to 42.2, 71 % of the base (Table 7)",
    )
    worse = context_difference(report, "base", "mt")
    better = context_difference(report, "mt", "long_context")
    if report is None or worse is None:
        return [_absent(*costs), _absent(*back)]
    ruler = "lengths" in report
    worsens, improves = (_falling, _rising) if ruler else (_rising, _falling)
    first = Claim(claim=costs[0], paper=costs[1], ours=_reach(worse, ruler), verdict=worsens(worse))
    if better is None:
        return [first, _absent(*back)]
    share = f"; {words.percent(-better.value / worse.value, 0)} % of what it cost" if first.verdict == "shows" else ""
    return [first, Claim(claim=back[0], paper=back[1], ours=_reach(better, ruler) + share, verdict=improves(better))]


def _reach(found: Difference, ruler: bool) -> str:
    if ruler:
        return f"{words.points(found.value)} points {words.interval(found.low, found.high)}{_kind(found)}"
    change = f"{found.value:+.3f} nats per token [{found.low:+.3f}, {found.high:+.3f}]".replace("-", "−")
    return f"loss far into a document against its start: {change}{_kind(found)}"


def _falling(found: Difference) -> Verdict:
    answers: Mapping[str, Verdict] = {"down": "shows", "up": "opposite", "unclear": "not clear"}
    return answers[found.direction]


def _weights(report: Mapping[str, Any] | None) -> list[Claim]:
    nearly_all = ("Mid-training changes nearly all weights by more than 1 %", "over 90 % (section 10.1)")
    fewer = (
        "RL changes fewer weights than mid-training, at every threshold",
        "95.0 % against 3.5 % unchanged at 1 % (Table 22)",
    )
    shorter = ("RL moves the weights less far", "relative L2 370 to 580 times smaller (section 10.1)")
    first, second = weight_changes(report)
    if first is None or second is None:
        return [_absent(*entry) for entry in (nearly_all, fewer, shorter)]
    changed, later = (1 - row["unchanged"]["1"] for row in (first, second))
    below = [name for name in first["unchanged"] if second["unchanged"][name] > first["unchanged"][name]]
    shares = f"{words.percent(later)} % against {words.percent(changed)} % changed by more than 1 %"
    held = f"; holds at {len(below)} of {len(first['unchanged'])} thresholds"
    ratio = first["l2"] / second["l2"] if first["l2"] and second["l2"] else None
    return [
        _exact(nearly_all, f"{words.percent(changed)} %", changed > NEARLY_ALL),
        _exact(fewer, shares + held, len(below) == len(first["unchanged"])),
        _absent(*shorter) if ratio is None else _exact(shorter, f"{words.figure(ratio)} times smaller", ratio > 1),
    ]


def weight_changes(report: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """(base to MT, MT to RL): the totals of the weight analysis. None where it was not measured."""
    if report is None or len(report.get("labels", ())) < 3:
        return None, None
    base, mt, rl = report["labels"][:3]
    totals = {row["transition"]: row for row in report["changes"] if row["scope"] == "total"}
    return totals.get(f"{base} -> {mt}"), totals.get(f"{mt} -> {rl}")


def _geometry(report: Mapping[str, Any] | None) -> list[Claim]:
    same = (
        f"RL keeps the geometry: CKA of MT and RL is above {SAME_GEOMETRY} at every layer",
        "at least 0.9993 (Table 14)",
    )
    moved = ("Mid-training changes it more: CKA of base and MT is below, at every layer", "0.41 to 0.98 (section 10.2)")
    first, second = cka_curves(report)
    if first is None or second is None:
        return [_absent(*same), _absent(*moved)]
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if not pairs:
        return [_absent(*same), _absent(*moved)]
    lowest = min(b for _, b in pairs)
    lower = sum(a < b for a, b in pairs)
    ours = f"lowest {min(a for a, _ in pairs):.3f}; below in {lower} of {len(pairs)} layers"
    return [
        _exact(same, f"lowest {lowest:.4f}", lowest > SAME_GEOMETRY),
        _exact(moved, ours, lower == len(pairs)),
    ]


def cka_curves(report: Mapping[str, Any] | None) -> tuple[list[float | None] | None, list[float | None] | None]:
    """CKA per layer of (base, MT) and (MT, RL). None where it was not measured."""
    if report is None or len(report.get("labels", ())) < 3:
        return None, None
    base, mt, rl = report["labels"][:3]
    curves = {tuple(entry["pair"]): entry["curve"] for entry in report["comparisons"] if entry["curve"]}
    found = [curves[pair]["value"] if pair in curves else None for pair in ((base, mt), (mt, rl))]
    return found[0], found[1]


def _length(scores: Any) -> Claim:
    claim, paper = "Responses grow longer with mid-training", "7 to 19 times, Nemotron-H 4 times (Table 15)"
    base, tuned = (_mean_length(scores, arm) for arm in ("base", "mt"))
    if not base or not tuned:
        return _absent(claim, paper)
    ours = f"{words.figure(tuned / base)} times: {base:.0f} to {tuned:.0f} tokens"
    return _exact((claim, paper), ours, tuned > base)


def _mean_length(scores: Any, arm: str) -> float | None:
    benchmarks = (scores or {}).get("arms", {}).get(arm, {}).get("benchmarks", {})
    lengths = [entry["length"] for entry in benchmarks.values() if entry.get("length") is not None]
    return sum(lengths) / len(lengths) if lengths else None


def _exact(entry: tuple[str, str], ours: str, holds: bool) -> Claim:
    """For figures that are counted, not sampled: no interval."""
    return Claim(claim=entry[0], paper=entry[1], ours=ours, verdict="shows" if holds else "opposite")


def _absent(claim: str, paper: str) -> Claim:
    return Claim(claim=claim, paper=paper, ours="–", verdict="not measured")

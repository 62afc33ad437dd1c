"""Several runs beside each other: settings that differ, scores, losses."""

from collections.abc import Mapping, Sequence
from typing import Any

from prism_nemo.report import words
from prism_nemo.report.blocks import Block, Cell, Figure, Key, Missing, Panel, Section, Table
from prism_nemo.report.claims import claims
from prism_nemo.report.differences import score_of
from prism_nemo.report.figures import Line, curves
from prism_nemo.report.outcome import VERDICT_MARKS
from prism_nemo.report.run import Run, label

COLOURS = ("one", "two", "three", "four", "five")


def comparison(runs: Sequence[Run]) -> list[Section]:
    """One section for all runs together."""
    blocks: list[Block] = [_settings(runs), _scores(runs), _claims(runs), *_losses(runs)]
    return [Section(name="comparison", title="The runs side by side", blocks=blocks)]


def names(runs: Sequence[Run]) -> list[str]:
    """What the runs are called: the folder's name, with a number where two are the same."""
    found: list[str] = []
    for run in runs:
        name = run.path.resolve().name
        found.append(name if name not in found else f"{name} ({len(found) + 1})")
    return found


def _settings(runs: Sequence[Run]) -> Table:
    flat = [_flat(run.recipe) for run in runs]
    keys = list(dict.fromkeys(key for recipe in flat for key in recipe))
    differ = [key for key in keys if len({str(recipe.get(key, "–")) for recipe in flat}) > 1 and key != "name"]
    rows = [[key, *(str(recipe.get(key, "–")) for recipe in flat)] for key in differ] or [
        ["none", *("–" for _ in runs)]
    ]
    return Table(title="Settings that differ", columns=["setting", *names(runs)], rows=rows, text_columns=1 + len(runs))


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, entry in value.items():
        if isinstance(entry, Mapping) and entry:
            found |= _flat(entry, f"{prefix}{key}.")
        else:
            found[prefix + key] = entry
    return found


def _scores(runs: Sequence[Run]) -> Table:
    arms = list(dict.fromkeys(arm for run in runs for arm in run.arms))
    domains = [*dict.fromkeys(domain for run in runs for domain in run.domains), "mean"]
    rows = [[label(arm), domain, *(_cell(run, arm, domain) for run in runs)] for arm in arms for domain in domains]
    return Table(
        title="Scores, percent right",
        columns=["arm", "domain", *names(runs)],
        rows=rows,
        text_columns=2,
        note="Brackets: 95 % interval over questions.",
    )


def _cell(run: Run, arm: str, domain: str) -> str:
    entry = score_of((run.scores or {}).get("arms", {}).get(arm, {}), domain)
    return f"{words.percent(entry['avg'])} {words.interval(entry['low'], entry['high'])}" if entry else "–"


def _claims(runs: Sequence[Run]) -> Table:
    rows: list[list[str | Cell]] = []
    for found in zip(*(claims(run) for run in runs), strict=True):
        cells = [Cell(text=claim.verdict, mark=VERDICT_MARKS[claim.verdict]) for claim in found]
        rows.append([found[0].claim, *cells])
    return Table(title="The paper's claims", columns=["claim", *names(runs)], rows=rows, text_columns=1 + len(runs))


def _losses(runs: Sequence[Run]) -> list[Block]:
    lines, keys = [], []
    for number, (run, name) in enumerate(zip(runs, names(runs), strict=True)):
        rows = [row for row in run.curves.get("midtrain", ()) if "split" not in row]
        if rows:
            role, dashed = COLOURS[number % len(COLOURS)], number >= len(COLOURS)
            lines.append(
                Line(role=role, x=[row["tokens"] for row in rows], y=[row["loss"] for row in rows], dashed=dashed)
            )
            keys.append(Key(text=name, colour=role, dashed=dashed))
    if not lines:
        return [Missing(what="Losses of mid-training", why="none of the runs has logged a step of it")]
    svg = curves(lines, "comparison-loss", x="tokens", y="nats per token")
    says = "; ".join(f"{key.text} ends at {line.y[-1]:.3f}" for key, line in zip(keys, lines, strict=True))
    return [
        Figure(
            title="Loss of mid-training",
            panels=[Panel(title="training loss", svg=svg, says=says)],
            legend=keys,
            reading="Curves of the same data can be compared point by point; those of other mixtures cannot.",
        )
    ]

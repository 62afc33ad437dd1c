"""What came out: the four arms, what differs, the paper's claims, retention."""

from collections.abc import Mapping, Sequence
from typing import Any

from prism_nemo.report import words
from prism_nemo.report.blocks import Block, Cell, Figure, Headline, Mark, Missing, Panel, Section, Stat, Table, Text
from prism_nemo.report.claims import claims
from prism_nemo.report.differences import Difference, retention_difference, score_difference, score_of
from prism_nemo.report.figures import Estimate, estimates
from prism_nemo.report.paper import beside_paper, paper_leaderboards
from prism_nemo.report.run import ARMS, Run, label

PAIRS = (("base", "mt"), ("mt", "rl"), ("base", "rl_base"), ("rl_base", "mt"), ("rl_base", "rl"))
"""Differences that the paper's argument rests on."""
AVERAGES = "avg3: mean over the domains of the mean over their benchmarks; avg6: plain mean of the paper's six."
VERDICT_MARKS: Mapping[str, Mark] = {
    "shows": "gain",
    "opposite": "loss",
    "not clear": "unclear",
    "not measured": "absent",
}


def outcome(run: Run, prefix: str) -> list[Section]:
    """Scores, differences, retention, and the paper beside them."""
    return [
        Section(name=f"{prefix}scores", title="What came out", short="Scores", blocks=_scores(run, prefix)),
        Section(name=f"{prefix}retention", title="What was kept", short="Retention", blocks=_retention(run, prefix)),
        Section(name=f"{prefix}paper", title="Beside the paper", short="The paper", blocks=_paper(run)),
    ]


def headline(run: Run) -> Headline:
    """The four means, and what they mean, in figures of this run."""
    arms = (run.scores or {}).get("arms", {})
    stats = [
        Stat(
            label=label(arm),
            value=words.percent(entry["avg"]),
            small=words.interval(entry["low"], entry["high"]),
            role=arm if arm in ARMS else "five",
        )
        for arm in run.arms
        if (entry := arms[arm].get("mean"))
    ]
    mean = "mean" if run.rehearsal else "avg3, the mean"
    caption = f"Percent of samples right, {mean} of {', '.join(run.domains)}, with 95 % intervals" if stats else ""
    return Headline(stats=stats, caption=caption, sentences=_sentences(run))


def _sentences(run: Run) -> list[str]:
    said = {"up": "lifts", "down": "lowers", "unclear": "does not measurably change"}
    found = []
    for start, end, who in (
        ("base", "mt", "Mid-training"),
        ("mt", "rl", "RL after it"),
        ("base", "rl_base", "RL on the base"),
    ):
        change = score_difference(run.scores, start, end, "mean") if start in run.arms and end in run.arms else None
        if change is not None:
            found.append(f"{who} {said[change.direction]} the mean ({words.points(change.value)} points)")
    return [*found, f"Of the paper's claims that a run can test: {verdict_counts(run)}"]


def verdict_counts(run: Run) -> str:
    """How many of the paper's claims show in a run, and how many do not."""
    verdicts = [claim.verdict for claim in claims(run)]
    said = {"shows": "shown", "opposite": "opposite", "not clear": "not clear", "not measured": "not measured"}
    return ", ".join(f"{verdicts.count(verdict)} {said[verdict]}" for verdict in said if verdict in verdicts)


def _scores(run: Run, prefix: str) -> list[Block]:
    if not run.arms or run.scores is None:
        return [Missing(what="Scores", why="the stage `evaluate` has not run")]
    absent = [label(arm) for arm in ARMS if arm not in run.arms]
    blocks: list[Block] = [four_arms(run)]
    if absent:
        blocks.append(Missing(what=f"Arms {', '.join(absent)}", why="they are not in evaluate/scores.json"))
    several = [] if run.rehearsal else [each_benchmark(run), _benchmark_differences(run)]
    return [*blocks, _arms_figure(run, prefix), _differences(run), *several, _conduct(run)]


def protocol_line(run: Run) -> str:
    """How the scores were made, in one line: benchmarks that were asked alike together."""
    if run.scores is None:
        return ""
    asked = run.scores.get("protocol") or {}
    ways: dict[str, list[str]] = {}
    for name, entry in run.benchmarks.items():
        ways.setdefault(_way(entry), []).append(_shown(run, name))
    alike = len(ways) == 1
    parts = [way if alike else f"{', '.join(names)}: {way}" for way, names in ways.items()]
    counts = ", ".join(f"{entry['questions']} {_shown(run, name)}" for name, entry in run.benchmarks.items())
    parts += [f"{'held-out questions' if run.rehearsal else 'questions'}: {counts}"] if counts else []
    return "; ".join([*parts, *(f"{key} {asked[key]}" for key in ("prompting", "seed") if key in asked)])


def _way(entry: Mapping[str, Any]) -> str:
    way = f"avg@{entry['k']}, temperature {entry['temperature']:g}"
    way += f", top-p {entry['top_p']:g}" if entry["top_p"] < 1 else ""
    return f"{way}, at most {entry['max_new_tokens']:,} tokens"


def _shown(run: Run, benchmark: str) -> str:
    """A rehearsal's problems go by their domain, of which there is one benchmark."""
    return str(run.benchmarks[benchmark]["domain"]) if run.rehearsal else benchmark


def four_arms(run: Run) -> Table:
    """The table of the four arms: percent of samples right, with 95 % intervals over questions."""
    arms = (run.scores or {})["arms"]
    losses = (run.scores or {}).get("retention") or {}
    rows = []
    for arm in run.arms:
        cells = [_score_cell(score_of(arms[arm], name)) for name in (*run.domains, *run.averages)]
        loss = [f"{losses[arm]['loss']:.3f}" if arm in losses else "–"] if losses else []
        rows.append([label(arm), *cells, *loss])
    note = f"{protocol_line(run)}. Brackets: 95 % interval over questions."
    note += " General loss: nats per token, lower is better." if losses else ""
    return Table(
        title="Four arms: percent of samples that are right",
        columns=["arm", *run.domains, *run.averages.values(), *(["general loss"] if losses else [])],
        rows=rows,
        note=note if run.rehearsal else f"{note} {AVERAGES}",
    )


def each_benchmark(run: Run) -> Table:
    """Percent of samples right of every arm on every benchmark."""
    arms = (run.scores or {})["arms"]
    rows = [
        [name, str(entry["k"]), *(_score_cell(score_of(arms[arm], name)) for arm in run.arms)]
        for name, entry in run.benchmarks.items()
    ]
    held_out = [name for name, entry in run.benchmarks.items() if entry["held_out"]]
    return Table(
        title="Each benchmark: percent of samples that are right",
        columns=["benchmark", "k", *(label(arm) for arm in run.arms)],
        rows=rows,
        note="Brackets: 95 % interval over questions."
        + (f" {', '.join(held_out)}: newer than the models' data, in no average." if held_out else ""),
    )


def _benchmark_differences(run: Run) -> Table:
    pairs = [pair for pair in PAIRS if set(pair) <= set(run.arms)]
    rows: list[list[str | Cell]] = [
        [name, *(_change_cell(score_difference(run.scores, *pair, name)) for pair in pairs)] for name in run.benchmarks
    ]
    return Table(
        title="Differences in points on each benchmark",
        columns=["benchmark", *(f"{label(start)} → {label(end)}" for start, end in pairs)],
        rows=rows,
        folded=True,
        note="Question by question, with the 95 % interval of the difference.",
    )


def _score_cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "–"
    return f"{words.percent(entry['avg'])} {words.interval(entry['low'], entry['high'])}"


def _arms_figure(run: Run, prefix: str) -> Figure:
    arms = (run.scores or {})["arms"]
    shown = {**{domain: domain for domain in run.domains}, **run.averages}
    parts = {said: {arm: score_of(arms[arm], name) for arm in run.arms} for name, said in shown.items()}
    high = max(entry["high"] for found in parts.values() for entry in found.values() if entry)
    limits = (-0.03 * 100 * high, min(104.0, 100 * high * 1.12) or 1.0)
    panels = []
    for number, (domain, found) in enumerate(parts.items()):
        rows = [
            Estimate(
                name=label(arm),
                role=arm if arm in ARMS else "five",
                value=100 * entry["avg"],
                low=100 * entry["low"],
                high=100 * entry["high"],
                text=words.percent(entry["avg"]),
            )
            for arm, entry in found.items()
            if entry
        ]
        says = "; ".join(f"{row.name} {row.text}" for row in rows)
        svg = estimates(rows, f"{prefix}arms{number}", axis="percent right", limits=limits)
        panels.append(Panel(title=domain, svg=svg, says=f"{domain}, percent right: {says}"))
    return Figure(
        title="The four arms",
        panels=panels,
        reading="Further right is better; where the bars of two arms overlap widely, this run cannot tell them apart.",
    )


def _differences(run: Run) -> Table:
    rows: list[list[str | Cell]] = []
    for start, end in PAIRS:
        if start in run.arms and end in run.arms:
            found = [score_difference(run.scores, start, end, name) for name in (*run.domains, *run.averages)]
            rows.append([f"{label(start)} → {label(end)}", *(_change_cell(entry) for entry in found)])
    return Table(
        title="Differences in points",
        columns=["from → to", *run.domains, *run.averages.values()],
        rows=rows,
        note=_pairing_note(run) + "▲ up, ▼ down, ~ the interval holds zero: no difference that this run can show.",
    )


def _pairing_note(run: Run) -> str:
    found = [
        score_difference(run.scores, start, end, domain)
        for start, end in PAIRS
        for domain in (*run.domains, *run.averages)
        if start in run.arms and end in run.arms
    ]
    if all(entry is None or entry.paired for entry in found):
        return "Question by question, with the 95 % interval of the difference. "
    return "Where no paired difference was measured (°), the interval spans the ends of both arms' own. "


def _change_cell(found: Difference | None) -> Cell:
    if found is None:
        return Cell(text="–", mark="absent")
    sign = {"up": "▲", "down": "▼", "unclear": "~"}[found.direction]
    mark: Mark = {"up": "gain", "down": "loss", "unclear": "unclear"}[found.direction]  # type: ignore[assignment]
    text = f"{sign} {words.points(found.value)} {words.interval(found.low, found.high)}"
    return Cell(text=text + ("" if found.paired else " °"), mark=mark)


def _conduct(run: Run) -> Table:
    """How the answers look: format, cut off, length."""
    arms = (run.scores or {})["arms"]
    rows = []
    for arm in run.arms:
        for name, entry in arms[arm].get("benchmarks", {}).items():
            length = entry.get("length")
            shares = (words.percent(entry.get(key)) for key in ("format", "truncated"))
            tokens = "–" if length is None else f"{length:.1f}"
            rows.append([label(arm), _shown(run, name), *shares, tokens, _best(entry.get("pass_at_k"))])
    return Table(
        title="How the answers look",
        columns=["arm", "questions", "in think format, %", "cut off, %", "tokens", "any of k right, %"],
        rows=rows,
        text_columns=2,
        folded=True,
        note="Cut off: the answer used up its tokens. Tokens: mean length of an answer. Any of k right: pass@k.",
    )


def _best(found: Mapping[str, float] | None) -> str:
    """pass@k of the largest k that was measured."""
    if not found:
        return "–"
    k = max(found, key=int)
    return f"{words.percent(found[k])} (k = {k})"


def _retention(run: Run, prefix: str) -> list[Block]:
    found = [*_losses(run, prefix), *leaderboards(run).values()]
    return found or [Missing(what="Retention", why="neither a loss on held-out general text nor leaderboard tasks")]


def leaderboards(run: Run) -> dict[str, Table]:
    """Arm -> its leaderboard tasks against the base; empty in a rehearsal."""
    tasks = (run.analyses.get("retention") or {}).get("tasks", ())
    arms = dict.fromkeys(row["arm"] for row in tasks)
    return {arm: _leaderboard(run, arm, [row for row in tasks if row["arm"] == arm]) for arm in arms}


def _leaderboard(run: Run, arm: str, tasks: Sequence[Mapping[str, Any]]) -> Table:
    theirs = paper_leaderboards(run.recipe["model"]["family"], arm, run.recipe["data"]["mixture"])
    rows: list[list[str | Cell]] = []
    for row in tasks:
        paper = [theirs.get(row["name"], "–")] if theirs else []
        values = (_value_cell(row[point]) for point in ("base", "tuned"))
        rows.append([row["name"], *values, _lost_cell(row), *paper])
    note = "Percent; paired by document, with 95 % intervals. LOST: the whole interval of the difference is below 0. "
    note += "BBH, GPQA, MUSR and MMLU-Pro: 0 is chance."
    cut = [
        f" {row['name']}: {row['cut']:,} prompts did not fit and lost their beginning." for row in tasks if row["cut"]
    ]
    return Table(
        title=f"Leaderboard tasks: {label(arm)} against the base",
        columns=["task", "base", label(arm), "difference", *(["the paper's"] if theirs else [])],
        rows=rows,
        note=note + "".join(cut),
    )


def _value_cell(found: Mapping[str, float]) -> str:
    return f"{words.percent(found['value'])} {words.interval(found['low'], found['high'])}"


def _lost_cell(row: Mapping[str, Any]) -> Cell:
    change = row["difference"]
    text = f"{words.points(change['value'])} {words.interval(change['low'], change['high'])}"
    if row["lost"]:
        return Cell(text=f"▼ {text} LOST", mark="loss")
    up = change["low"] > 0
    return Cell(text=f"{'▲' if up else '~'} {text}", mark="gain" if up else "unclear")


def _losses(run: Run, prefix: str) -> list[Block]:
    losses = (run.scores or {}).get("retention") or {}
    if not losses:
        return []
    names = [arm for arm in ARMS if arm in losses] + [arm for arm in losses if arm not in ARMS]
    rows: list[list[str | Cell]] = []
    for arm in names:
        entry = losses[arm]
        change = retention_difference(run.scores, "base", arm) if arm != "base" else None
        rows.append(
            [
                label(arm),
                _loss_cell(change) if arm != "base" else Cell(text="–", mark="absent"),
                f"{entry['loss']:.4f} [{entry['low']:.4f}, {entry['high']:.4f}]",
                words.count(entry.get("tokens")),
            ]
        )
    unit = next(iter(losses.values())).get("unit", "nats per token")
    low, high = (pick(entry[end] for entry in losses.values()) for pick, end in ((min, "low"), (max, "high")))
    room = 0.12 * (high - low) or 0.1
    drawn = [
        Estimate(
            name=label(arm),
            role=arm if arm in ARMS else "five",
            value=losses[arm]["loss"],
            low=losses[arm]["low"],
            high=losses[arm]["high"],
            text=f"{losses[arm]['loss']:.3f}",
        )
        for arm in names
    ]
    svg = estimates(drawn, f"{prefix}retention", axis=unit, limits=(low - room, high + room))
    says = "; ".join(f"{entry.name} {entry.text}" for entry in drawn)
    return [
        Figure(
            title="Loss on held-out general text",
            panels=[Panel(title="general text", svg=svg, says=f"{unit}: {says}")],
            reading="Further left is better; an arm right of the base has forgotten some of what the base knew.",
        ),
        Table(
            title=f"Retention, {unit}",
            columns=["arm", "against the base", "loss", "tokens"],
            rows=rows,
            note="A loss is called real when the whole 95 % interval of the change is above zero; ° not paired.",
        ),
    ]


def _loss_cell(found: Difference | None) -> Cell:
    if found is None:
        return Cell(text="–", mark="absent")
    said = {"up": "▲ real loss", "down": "▼ better", "unclear": "~ cannot tell"}[found.direction]
    mark: Mark = {"up": "loss", "down": "gain", "unclear": "unclear"}[found.direction]  # type: ignore[assignment]
    change = f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]".replace("-", "−")
    return Cell(text=f"{said} {change}" + ("" if found.paired else " °"), mark=mark)


def _paper(run: Run) -> list[Block]:
    found = claims(run)
    blocks: list[Block] = []
    if run.rehearsal:
        blocks.append(
            Text(
                text="The model of this run is thousands of times smaller than the paper's and answers easier "
                "questions: scores cannot be compared, only the direction of each effect can."
            )
        )
    rows: list[list[str | Cell]] = [
        [claim.claim, Cell(text=claim.verdict, mark=VERDICT_MARKS[claim.verdict]), claim.ours, claim.paper]
        for claim in found
    ]
    blocks.append(
        Table(
            title="The paper's claims in this run",
            columns=["claim", "verdict", "this run", "the paper's figures"],
            rows=rows,
            text_columns=4,
            note=f"{verdict_counts(run)}. Verdicts follow from this run's figures alone: a sampled figure shows a "
            "claim when its whole 95 % interval does; counted figures (weights, CKA, lengths) have none. "
            "Paper: arXiv 2603.17074.",
        )
    )
    return blocks if run.rehearsal else [*blocks, *beside_paper(run)]

"""Ours beside the paper's: only for a run of one of the seven bases, on the benchmarks the paper has."""

from collections.abc import Mapping, Sequence
from typing import Any

from prism_nemo.report import words
from prism_nemo.report.blocks import Block, Cell, Missing, Table
from prism_nemo.report.run import Run, label

STAGES = {
    "base": "base",
    "mt": "mt",
    "rl": "mt_rl",
    "merge": "merge",
    "long_context": "merge_lc_full",
    "long_context_attention": "merge_lc_attn",
}
"""Arm or point of a run -> the paper's row; it prints none of base + RL."""
MIXTURES = {"math": "m", "math_code": "mc", "math_code_science": "mcs"}


def paper_scores(family: str, arm: str, mixture: str, table: str | None = None) -> dict[str, float]:
    """Benchmark -> percent that the paper prints for a base (recipe name), an arm and a mixture; empty: it has none.

    MT + RL: prompts of math, code and science.
    """
    from prism_nemo.errors import InputError
    from prism_nemo.evaluation import paper

    short = MIXTURES.get(mixture)
    if arm not in STAGES or short is None:
        return {}
    if table is None and arm == "mt" and short != "mcs":
        table = "Table 11"  # Table 6 has the whole mixture only
    try:
        rows = paper.paper_scores(family, STAGES[arm], f"{short}>mcs" if arm == "rl" else short, table)
    except InputError:
        return {}
    return {name: entry.value for name, entry in rows.items()}


def paper_ruler(family: str, point: str, lengths: Sequence[int]) -> list[str]:
    """The paper's RULER scores (Table 7: Granite-3.3, math and code) at these lengths; empty for another model."""
    found = paper_scores(family, point, "math_code", "Table 7")
    names = [f"ruler_{length // 1024}k" for length in lengths]
    return [f"{found[name]:.2f}" if name in found else "–" for name in names] if found else []


def paper_leaderboards(family: str, arm: str, mixture: str) -> dict[str, str]:
    """Task or average -> "base to tuned" as the paper prints it: single tasks for Granite-3.3 (Table 4), averages for
    all (Table 6); empty where it has none."""
    found: dict[str, str] = {}
    for table in ("Table 6", "Table 4"):
        before, after = (paper_scores(family, point, mixture, table) for point in ("base", arm))
        found |= {name: f"{before[name]:.2f} to {after[name]:.2f}" for name in before if name in after}
    return found


def beside_paper(run: Run) -> list[Block]:
    """A table of this run's scores and the paper's for the same base, mixture and benchmark."""
    rows = [row for arm in run.arms for row in _rows(run, arm)]
    if not rows:
        why = "no benchmark of this run is in the paper's tables for this model and mixture"
        return [Missing(what="Ours beside the paper's", why=why)]
    return [
        Table(
            title="Ours beside the paper's, percent",
            columns=["arm", "benchmark", "ours", "paper", "the paper's is"],
            rows=rows,
            text_columns=2,
            note="Paper: Table 6 (base, MT) and Table 11 (MT + RL, MCS prompts, the paper's best step). Within: inside "
            "our 95 % interval over questions; another training run would differ by more than that interval says.",
        )
    ]


def _rows(run: Run, arm: str) -> list[list[str | Cell]]:
    theirs = paper_scores(run.recipe["model"]["family"], arm, run.recipe["data"]["mixture"])
    scores = (run.scores or {})["arms"][arm]
    averages = {name: scores[name] for name in ("avg3", "avg6") if name in scores}
    ours: Mapping[str, Any] = {**scores.get("benchmarks", {}), **averages}
    return [
        [
            label(arm),
            benchmark,
            f"{words.percent(entry['avg'], 2)} {words.interval(entry['low'], entry['high'])}",
            f"{theirs[benchmark]:.2f}",
            _place(theirs[benchmark], 100 * entry["low"], 100 * entry["high"]),
        ]
        for benchmark, entry in ours.items()
        if benchmark in theirs
    ]


def _place(theirs: float, low: float, high: float) -> Cell:
    """Where the paper's figure lies beside our interval, all in percent."""
    if low <= theirs <= high:
        return Cell(text="within", mark="gain")
    return Cell(text="▲ above" if theirs > high else "▼ below", mark="unclear")

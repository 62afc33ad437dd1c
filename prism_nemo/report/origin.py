"""Where it comes from: lineage with fingerprints, proofs of the conversions, versions, cost."""

from pathlib import Path

from prism_nemo.artifacts import Input
from prism_nemo.report import words
from prism_nemo.report.blocks import Block, Figure, Missing, Panel, Section, Table
from prism_nemo.report.figures import bars, lineage
from prism_nemo.report.run import Run, spent

SHORT = 8
"""Hex digits of a fingerprint in the drawing."""
MINOR_SECONDS = 0.02
"""Share of the longest stage below which a stage gets no bar of its own."""


def origin(run: Run, prefix: str) -> list[Section]:
    """Proofs, lineage, cost."""
    return [
        Section(name=f"{prefix}proofs", title="Conversions, with proof", short="Proofs", blocks=_proofs(run)),
        Section(name=f"{prefix}lineage", title="Where it comes from", short="Lineage", blocks=_lineage(run, prefix)),
        Section(name=f"{prefix}cost", title="What it took", short="Cost", blocks=_cost(run, prefix)),
    ]


def _proofs(run: Run) -> list[Block]:
    if not run.proofs:
        return [Missing(what="Proofs of conversion", why="no conversion has run")]
    rows = []
    for stage, proof in run.proofs.items():
        exact = (proof.get("runs") or {}).get("fp32", {})
        rows.append(
            [
                stage,
                str(proof["level"]),
                words.count(proof["tensors"]),
                _exponent(exact.get("logits_max")),
                _exponent(exact.get("gradient_relative")),
            ]
        )
    return [
        Table(
            title="Hugging Face and Megatron hold the same model",
            columns=[
                "conversion",
                "proof",
                "tensors",
                "largest difference of a logit",
                "largest difference of a gradient",
            ],
            rows=rows,
            text_columns=2,
            note="full: names, every bit, logits and gradients in fp32, each side run by its own library; "
            "scaled: logits and gradients of a small model with the same configuration; keys: names and bits.",
        )
    ]


def _exponent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}".replace("-", "−")


def _lineage(run: Run, prefix: str) -> list[Block]:
    if not run.manifests:
        return [Missing(what="Lineage", why="no stage has finished")]
    names = list(run.manifests)
    edges = [(names.index(start), names.index(end)) for start, end in _edges(run)]
    nodes = [(name, run.fingerprints[name][:SHORT]) for name in names]
    svg = lineage(nodes, edges, f"{prefix}lineage")
    figure = Figure(
        title="What was made from what",
        panels=[
            Panel(title="lineage", svg=svg, says="The artifacts of the run in order; the table below has their inputs")
        ],
        reading="Every dot is a folder of the run, from the first to the last; an arc leads down from each to what was "
        "made from it. On the right the first digits of its content's fingerprint.",
    )
    return [figure, _artifacts(run)]


def _edges(run: Run) -> list[tuple[str, str]]:
    """Artifact -> artifact; the inputs from outside the run stand in the table."""
    return [(start, name) for name in run.manifests for start in _made_from(run, name) if start in run.manifests]


def _made_from(run: Run, name: str) -> list[str]:
    """Inputs of the manifest, and those that only the stage's record has (of a blend: the corpus its files lie in)."""
    found = [_input(run, name, entry) for entry in run.manifests[name].inputs]
    marks = {mark: stage for stage, mark in run.fingerprints.items()}
    found += [marks[mark] for mark in run.records.get(name, {}).get("inputs", {}).values() if mark in marks]
    return [entry for entry in dict.fromkeys(found) if entry != name]


def _stage_of(run: Run, name: str, path: str) -> str | None:
    place = Path(path) if Path(path).is_absolute() else run.path / name / path
    inside = Path(*place.parts).resolve()
    base = run.path.resolve()
    if not inside.is_relative_to(base):
        return None
    first = inside.relative_to(base).parts[:1]
    return first[0] if first and first[0] in run.manifests else None


def _artifacts(run: Run) -> Table:
    rows = []
    for name, manifest in run.manifests.items():
        size = sum(entry["size"] for entry in manifest.files.values())
        inputs = ", ".join(_made_from(run, name)) or "–"
        made = manifest.created.removesuffix("+00:00").replace("T", " ")[: len("2026-01-01 00:00")]
        mark = run.fingerprints[name][: 2 * SHORT]
        rows.append([name, manifest.kind.replace("_", " "), inputs, mark, f"{size:,}", made])
    return Table(
        title="Artifacts",
        columns=["artifact", "kind", "made from", "fingerprint", "bytes", "made (UTC)"],
        rows=rows,
        text_columns=4,
        note=f"Of each fingerprint the first {2 * SHORT} of 32 digits. prism artifact verify DIR hashes every file "
        "again; prism artifact lineage DIR goes on to the sources.",
    )


def _input(run: Run, name: str, entry: Input) -> str:
    """An artifact of the run by its name, anything else with its fingerprint."""
    return _stage_of(run, name, entry.path) or f"{Path(entry.path).name} {entry.fingerprint[:SHORT]}"


def _cost(run: Run, prefix: str) -> list[Block]:
    timed = _timed(run)
    if not timed:
        return [Missing(what="Times", why="no stage has a record")]
    longest = max(timed.values())
    drawn = {name: seconds for name, seconds in timed.items() if seconds >= MINOR_SECONDS * longest}
    texts = [words.duration(seconds) for seconds in drawn.values()]
    svg = bars(list(drawn), {"one": list(drawn.values())}, f"{prefix}cost", axis="seconds", texts=texts)
    says = ", ".join(f"{name} {text}" for name, text in zip(drawn, texts, strict=True))
    return [
        Figure(
            title="Wall time of the stages",
            panels=[Panel(title="wall time", svg=svg, says=f"Wall time: {says}")],
            reading=f"The {len(timed)} stages took {words.duration(sum(timed.values()))} together; stages below "
            f"{100 * MINOR_SECONDS:.0f} % of the longest are left out.",
        ),
        _cost_table(run),
    ]


def _timed(run: Run) -> dict[str, float]:
    """Stage -> seconds; the report's own stage, which is not done yet, is not among them."""
    return {name: seconds for name in run.order if (seconds := spent(run.records.get(name, {})))}


def _cost_table(run: Run) -> Table:
    trained = sum(max(row.get("tokens", 0) for row in rows) for rows in run.curves.values())
    versions = sorted({manifest.program_version for manifest in run.manifests.values()})
    commits = sorted({manifest.git_commit for manifest in run.manifests.values() if manifest.git_commit})
    hosts = sorted({record["host"] for record in run.records.values() if record.get("host")})
    rows = [
        ["wall time", words.duration(sum(_timed(run).values()))],
        ["GPU-hours", _gpu_hours(run)],
        ["tokens trained on", words.count(trained)],
        ["machines", ", ".join(hosts) or "not recorded"],
        ["program", ", ".join(versions) or "not recorded"],
        ["git commit", ", ".join(commits) or "not recorded"],
    ]
    return Table(title="Cost and versions", columns=["what", "value"], rows=rows, text_columns=2)


def _gpu_hours(run: Run) -> str:
    """Of the stages that this program ran; NeMo-RL's own jobs keep no record here."""
    if not run.recipe["parallel"].get("devices_per_node"):
        return "none: CPUs only"
    without = "; without NeMo-RL's own jobs" if run.recipe["rl"]["engine"] == "nemo_rl" else ""
    return f"{run.gpu_seconds / 3600:,.1f}: time of each GPU stage times its ranks{without}"

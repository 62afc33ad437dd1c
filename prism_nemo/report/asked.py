"""What was asked and what went in: the recipe, the mixture, the fate of every row."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

from prism_nemo.report import words
from prism_nemo.report.blocks import Block, Figure, Folded, Key, Missing, Panel, Section, Table
from prism_nemo.report.figures import bars
from prism_nemo.report.run import Run

FATES = {
    "filtered": "filtered out",
    "quarantined": "bad",
    "not_drawn": "not read",
    "short": "too short",
    "duplicate": "a duplicate",
    "contaminated": "contaminated",
    "left_over": "not needed",
    "valid": "held out",
    "test": "kept for a test",
    "train": "trained on",
}
"""Fields of the data room's report -> what they mean; every row has exactly one of them."""
DIGITS = 8
"""Of a fingerprint in the tree."""
FILES_SHOWN = 10
"""Of each source in the tree."""
TREE_WIDTH = 100


def asked(run: Run, prefix: str) -> list[Section]:
    """The recipe and the data."""
    return [
        Section(name=f"{prefix}recipe", title="What was asked", short="Recipe", blocks=_recipe(run)),
        Section(name=f"{prefix}data", title="What went in", short="Data", blocks=_data(run, prefix)),
    ]


def _recipe(run: Run) -> list[Block]:
    model, settings = run.recipe["model"], run.recipe
    described = (
        f"pico {model['family']} ({_sizes(model['pico'])})" if run.rehearsal else f"{model['base']} ({model['family']})"
    )
    rows = [["model", described], ["mixture", settings["data"]["mixture"]]]
    for name in ("pretrain", "midtrain", "long_context"):
        if settings.get(name):
            rows.append([name.replace("_", " "), _training(settings[name])])
    if settings.get("merge"):
        rows.append(
            ["merge", f"{settings['merge']['weight']:g} mid-trained + {1 - settings['merge']['weight']:g} base"]
        )
    rows.append(["RL", _rl(settings["rl"])])
    rows.append(["seed, precision", f"{settings['seed']}, {settings['precision']}"])
    return [
        Table(title="The recipe in short", columns=["part", "asked"], rows=rows, text_columns=2),
        Folded(title="The resolved recipe", text=run.recipe_text),
    ]


def _sizes(pico: Mapping[str, int]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in pico.items())


def _training(part: Mapping[str, Any]) -> str:
    steps = part["tokens"] // (part["global_batch"] * part["seq_length"])
    return (
        f"{words.short(part['tokens'])} tokens in {steps:,} steps of {part['global_batch']} × {part['seq_length']:,}; "
        f"AdamW, peak learning rate {part['learning_rate']:g}, {part['schedule']} after "
        f"{part['warmup_steps']} warm-up steps"
    )


def _rl(part: Mapping[str, Any]) -> str:
    return (
        f"GRPO ({part['engine']}), {part['steps']} steps of {part['prompts_per_step']} prompts × "
        f"{part['samples_per_prompt']} rollouts on {', '.join(part['domains'])}; "
        f"learning rate {part['learning_rate']:g}, KL {part['kl']:g}"
    )


def _data(run: Run, prefix: str) -> list[Block]:
    if not run.blends:
        return [Missing(what="The data report", why="no stage has prepared a blend yet")]
    blocks: list[Block] = []
    for stage, report in run.blends.items():
        blocks += [_mixture_figure(stage, report, prefix), _sources(stage, report)]
        blocks += [*_quarantine(stage, report), _tree(run, stage, report)]
    return blocks


def _mixture_figure(stage: str, report: Mapping[str, Any], prefix: str) -> Figure:
    sources = sorted(report["sources"], key=lambda source: -source["share_asked"])
    shares = {
        "base": [100 * source["share_asked"] for source in sources],
        "mt": [100 * source["share_drawn"] for source in sources],
    }
    texts = [f"{words.percent(source['share_drawn'])} %" for source in sources]
    names = [source["name"].replace("_", " ") for source in sources]
    svg = bars(names, shares, f"{prefix}{stage}", axis="percent of training tokens", texts=texts)
    says = "; ".join(f"{name} {text}" for name, text in zip(names, texts, strict=True))
    return Figure(
        title=f"The mixture of {_stage_title(stage)}",
        panels=[Panel(title=str(report["mixture"]), svg=svg, says=f"Shares of training tokens: {says}")],
        legend=[Key(text="asked", colour="base"), Key(text="drawn", colour="mt")],
        reading="Two bars of the same length mean that the trainer reads the share that the mixture asks for.",
    )


def _stage_title(stage: str) -> str:
    return {"blend": "mid-training", "base_blend": "the base", "long_context_blend": "long context"}.get(stage, stage)


def _sources(stage: str, report: Mapping[str, Any]) -> Table:
    """What became of every row; fates that befell no row of any source are named in the note."""
    sources = report["sources"]
    fates = {name: [_fate(source, key) for source in sources] for key, name in FATES.items()}
    happened = {name: counts for name, counts in fates.items() if any(counts)}
    never = [name for name in fates if name not in happened]
    rows = [
        [
            source["name"].replace("_", " "),
            source["domain"],
            words.count(source["rows"]),
            *(words.count(counts[k]) for counts in happened.values()),
            words.count(source["train"]["tokens"]),
            words.count(source["tokens_drawn"]),
            f"{source['epochs']:.2f}",
        ]
        for k, source in enumerate(sources)
    ]
    none = f" No row was {' or '.join(', '.join(never).rsplit(', ', 1))}." if never else ""
    return Table(
        title=f"Documents of {_stage_title(stage)}: what became of every row",
        columns=["source", "domain", "rows", *happened, "their tokens", "tokens drawn", "epochs"],
        rows=rows,
        text_columns=2,
        note=f"Budget {report['tokens']:,} tokens in sequences of {report['seq_length']:,}, seed {report['seed']}."
        + none,
    )


def _fate(source: Mapping[str, Any], key: str) -> int:
    """How many rows: of a table of reasons their sum, of a Count its documents."""
    found = source[key]
    if isinstance(found, int):
        return found
    return int(found["documents"]) if "documents" in found else sum(found.values())


def _quarantine(stage: str, report: Mapping[str, Any]) -> list[Block]:
    rows = [
        [source["name"], reason, words.count(number)]
        for source in report["sources"]
        for reason, number in source["quarantined"].items()
    ]
    if not rows:
        return []
    title = f"Bad rows of {_stage_title(stage)}, by reason"
    return [Table(title=title, columns=["source", "reason", "rows"], rows=rows, text_columns=2)]


def _tree(run: Run, stage: str, report: Mapping[str, Any]) -> Folded:
    """Blend -> sources -> their files and the token files made of them, with sizes, tokens and fingerprints."""
    from rich.console import Console
    from rich.text import Text as Plain
    from rich.tree import Tree

    drawn = sum(source["tokens_drawn"] for source in report["sources"])
    root = Tree(Plain(f"{stage} {run.fingerprints[stage][:DIGITS]}: {drawn:,} tokens drawn"))
    for source in sorted(report["sources"], key=lambda source: -source["tokens_drawn"]):
        branch = root.add(Plain(f"{source['name']}: {source['tokens_drawn']:,} tokens drawn, {_read(source)}"))
        for line in _shown(f"{path} {_mark(file)}" for path, file in source["files"].items()):
            branch.add(Plain(line))
        made = run.manifests[stage].files
        stems = {part: source[part] for part in ("train", "valid", "test") if f"{part}/{source['name']}.bin" in made}
        for part, count in stems.items():
            path = f"{part}/{source['name']}.bin"
            branch.add(Plain(f"-> {path} {_mark(made[path])}: {count['tokens']:,} tokens"))
    console = Console(file=io.StringIO(), width=TREE_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(root)
    text = "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"
    return Folded(title=f"The tree of {_stage_title(stage)}: sources, files, fingerprints, tokens", text=text)


def _read(source: Mapping[str, Any]) -> str:
    return f"{source['rows']:,} rows in {len(source['files'])} file{'s' if len(source['files']) != 1 else ''}"


def _mark(file: Mapping[str, Any]) -> str:
    return f"{file['xxh3_128'][:DIGITS]}, {words.short(file['size'])}B"


def _shown(lines: Iterable[str]) -> list[str]:
    found = list(lines)
    more = [f"... and {len(found) - FILES_SHOWN:,} more, all in report.json of the blend"]
    return found if len(found) <= FILES_SHOWN else found[:FILES_SHOWN] + more

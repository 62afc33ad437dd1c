"""`prism analyze`: what training did to weights, representations and behaviour."""

import json
from pathlib import Path
from typing import Any

import typer

app = typer.Typer(help="What training did: weights, representations, behaviour.", no_args_is_help=True)

JSON = typer.Option(False, "--json", help="The whole report as JSON.")
OUT = typer.Option(..., "--out", "-o", help="Folder of the analysis artifact.")
FORCE = typer.Option(False, "--force", help="Rebuild an artifact that was made differently.")
LABELS = typer.Option("base,mt,rl", help="What the points are called.")
IGNORE = typer.Option([], help="Glob of tensor names to leave out; may be repeated.")
SUITE = typer.Option("", help="Benchmarks, such as math500:8.")
PROBLEMS = typer.Option(None, help="Instead: a JSONL file of problems.")
DATA = typer.Option([], help="NAME=FILE: a benchmark's local copy.")
PAPER = typer.Option(None, help="A model of the paper to stand beside, such as granite-3.3-8b.")


def _points(folders: list[Path | None], labels: str) -> dict[str, Path]:
    from prism_nemo.errors import InputError

    given = [folder for folder in folders if folder is not None]
    names = [label.strip() for label in labels.split(",")]
    if len(names) < len(given) or len(set(names)) < len(names):
        raise InputError(f"--labels {labels!r}: {len(given)} different names are needed, separated by commas")
    return dict(zip(names, given, strict=False))


def _named(given: list[str]) -> dict[str, Path] | None:
    from prism_nemo.errors import InputError

    parts = [item.partition("=") for item in given]
    wrong = next((item for item, (name, _, folder) in zip(given, parts, strict=True) if not (name and folder)), None)
    if wrong:
        raise InputError(f"--model {wrong}: give NAME=FOLDER, such as base=exports/base")
    if len({name for name, _, _ in parts}) < len(parts):
        raise InputError("two --model have the same name; give each its own")
    return {name: Path(folder) for name, _, folder in parts} or None


def _tell(report: dict[str, Any], lines: list[str], out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    for line in [*lines, *(f"note: {note}" for note in report.get("notes", [])), f"written to {out}"]:
        typer.echo(line)


@app.command()
def weights(
    a: Path,
    b: Path,
    c: Path | None = typer.Argument(None),
    out: Path = OUT,
    labels: str = LABELS,
    ignore: list[str] = IGNORE,
    paper: str | None = PAPER,
    force: bool = FORCE,
    json_output: bool = JSON,
) -> None:
    """How far every weight moved.  Example: prism analyze weights runs/base runs/mt runs/rl --out runs/weights"""
    from prism_nemo.analysis.weights_output import analyse_weights

    report = analyse_weights(out, _points([a, b, c], labels), ignore=ignore, paper=paper, force=force)
    lines = [
        f"{row['transition']}: relative L2 {_number(row['l2'])} (mean of tensors {_number(row['l2_tensor_mean'])}), "
        f"{_percent(row['bit_equal'])} bit-equal, {_percent(row['unchanged']['1'])} within 1 %"
        for row in report["changes"]
        if row["scope"] == "total"
    ]
    _tell(report, lines, out, json_output)


@app.command()
def cka(
    a: Path,
    b: Path,
    c: Path | None = typer.Argument(None),
    inputs: Path = typer.Option(..., help="Texts: one per line, or JSON lines with a text field."),
    out: Path = OUT,
    labels: str = LABELS,
    count: int = typer.Option(200, min=1, help="How many inputs."),
    field: str = typer.Option("text", help="Field of the JSON lines."),
    max_tokens: int = typer.Option(512, min=1, help="Longer inputs are cut (tokens)."),
    uncentred: bool = typer.Option(False, help="Without taking the mean over inputs off."),
    resample_size: int | None = typer.Option(
        None, help="Inputs per draw (without replacement); default: half of them."
    ),
    paper: str | None = PAPER,
    force: bool = FORCE,
    json_output: bool = JSON,
) -> None:
    """How alike the layers' representations are.  Example: prism analyze cka base mt rl --inputs t.jsonl --out cka"""
    from prism_nemo.analysis.representations_output import analyse_representations

    report = analyse_representations(
        out,
        _points([a, b, c], labels),
        inputs,
        count=count,
        field=field,
        max_tokens=max_tokens,
        centred=not uncentred,
        resample_size=resample_size,
        paper=paper,
        force=force,
    )
    lines = [
        f"{' and '.join(item['pair'])}: least alike at state {item['minimum'][0]}, CKA {item['minimum'][1]:.6f}"
        for item in report["comparisons"]
        if item["minimum"]
    ]
    _tell(report, lines, out, json_output)


@app.command()
def landscape(
    base: Path,
    mt: Path,
    rl: Path,
    out: Path = OUT,
    suite: str = SUITE,
    problems: Path | None = PROBLEMS,
    data: list[str] = DATA,
    store: Path = typer.Option(Path("generations"), help="Folder of the generation store."),
    samples: int = typer.Option(8, "-k", "--samples", min=1, help="Samples per question and point."),
    temperature: float = typer.Option(0.6, help="The paper's."),
    top_p: float = typer.Option(0.95, help="The paper's."),
    max_new_tokens: int = typer.Option(7680, help="The paper's."),
    path: bool = typer.Option(True, "--path/--no-path", help="The 7 + 4 points from base over MT to RL."),
    grid: bool = typer.Option(True, "--grid/--no-grid", help="The 5 x 5 points around MT."),
    backend: str = typer.Option("hf", help="hf or vllm."),
    prompting: str = typer.Option("raw", help="chat or raw."),
    paper: str | None = PAPER,
    force: bool = FORCE,
    json_output: bool = JSON,
) -> None:
    """Pass rate between checkpoints.  Example: prism analyze landscape base mt rl --problems held_out.jsonl --out l"""
    from prism_nemo.analysis.landscape import GRID, PATH
    from prism_nemo.analysis.landscape_output import analyse_landscape
    from prism_nemo.evaluation.arguments import benchmarks_of, prompting_of
    from prism_nemo.evaluation.protocol import Sampling

    def note(done: int, total: int) -> None:
        typer.echo(f"point {done} of {total}", err=True)

    report = analyse_landscape(
        out,
        {"base": base, "mt": mt, "rl": rl},
        benchmarks_of(suite, problems, 0, data, []),
        store,
        k=samples,
        sampling=Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens),
        prompting=prompting_of(prompting, None, None),
        path=PATH if path else (),
        grid=GRID if grid else (),
        backend=backend,
        paper=paper,
        force=force,
        progress=note,
    )
    lines = [
        f"position {point['x']:.3g}: pass rate {_percent(point['rate']['value'])}"
        for point in report["points"]
        if point["kind"] == "path"
    ]
    _tell(report, lines, out, json_output)


@app.command()
def behaviour(
    stores: list[Path] = typer.Argument(..., help="STORE...: folders of generation stores."),
    out: Path = OUT,
    suite: str = SUITE,
    problems: Path | None = PROBLEMS,
    data: list[str] = DATA,
    model: list[str] = typer.Option([], help="NAME=FOLDER: only these models, by these names; may be repeated."),
    samples: int | None = typer.Option(
        None, "-k", "--samples", min=1, help="Samples per question; default the benchmark's."
    ),
    paper: str | None = PAPER,
    force: bool = FORCE,
    json_output: bool = JSON,
) -> None:
    """Pass rate, length, confidence.  Example: prism analyze behaviour generations --suite math500:8 --out behaviour"""
    from prism_nemo.analysis.behaviour_output import analyse_behaviour
    from prism_nemo.evaluation.arguments import benchmarks_of

    asked = benchmarks_of(suite, problems, 0, data, [])
    report = analyse_behaviour(out, stores, asked, models=_named(model), k=samples, paper=paper, force=force)
    lines = [
        f"{row['name']} on {row['benchmark']}: pass rate {_percent(row['pass_rate']['value'])}, "
        f"median {_number(row['median_length']['value'])} tokens, {_number(row['nll']['value'])} nats per token"
        for row in report["rows"]
    ]
    _tell(report, lines, out, json_output)


@app.command()
def trajectory(
    run: Path,
    out: Path = OUT,
    start: Path | None = typer.Option(None, help="What RL began with; default the earliest checkpoint."),
    ignore: list[str] = IGNORE,
    paper: str | None = PAPER,
    force: bool = FORCE,
    json_output: bool = JSON,
) -> None:
    """How weights travel in RL.  Example: prism analyze trajectory runs/rl --start runs/mt --out runs/trajectory"""
    from prism_nemo.analysis.trajectory_output import analyse_trajectory

    report = analyse_trajectory(out, run, start=start, ignore=ignore, paper=paper, force=force)
    front = next(row for row in report["fronts"] if row["scope"] == "total")
    lines = [
        f"step {row['step']}: relative L2 {_number(row['l2'])}, {_percent(row['changed_1pct'])} beyond 1 %"
        for row in report["rows"]
        if row["scope"] == "total"
    ]
    lines.append(f"80 % of the way at step {_number(front['step'])}")
    _tell(report, lines, out, json_output)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.2f} %"

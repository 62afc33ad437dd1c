"""`prism eval`: sample, score, compare; retention and held-out loss."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from prism_nemo.evaluation.benchmark import Benchmark
    from prism_nemo.evaluation.store import GenerationStore
    from prism_nemo.evaluation.tables import Table

app = typer.Typer(help="Sample, score, compare; retention and held-out loss.", no_args_is_help=True)

STORE = typer.Option(Path("generations"), "--store", help="Generation store.")
SUITE = typer.Option(
    "", "--suite", help="prism, quick, a list such as aime24:64,gpqa_diamond; ruler, leaderboard_v1, _v2."
)
PROBLEMS = typer.Option(None, "--problems", help="Instead: JSONL of problems, a benchmark per domain.")
PER_DOMAIN = typer.Option(0, "--per-domain", help="Of --problems: so many of each; 0: all.", show_default=False)
DATA = typer.Option([], "--data", help="NAME=FILE: a benchmark's local copy.")
OPTION = typer.Option([], "--option", help="NAME.KEY=VALUE, as codeforces.editorial=true.")
SAMPLES = typer.Option(0, "-k", "--samples", help="Samples per question; 0: as the suite says.", show_default=False)
FORMAT = typer.Option("", "--format", help="terminal, markdown, json, html; else by the ending of --out.")
JSON = typer.Option(False, "--json", help="The same as --format json.")
OUT = typer.Option(None, "--out", help="Write the table to this file instead.")
PROTOCOL = typer.Option([], "--protocol", help="Only samples asked so, e.g. 1a2b3c4d; may be repeated.")
SEED = typer.Option(None, "--seed", help="Only samples of this seed.")
WORKERS = typer.Option(2, "--workers", help="Judges at a time.")


@app.command()
def run(
    model: str = typer.Argument(help="Folder; with --backend openai the served name."),
    suite: str = SUITE,
    problems: Path | None = PROBLEMS,
    per_domain: int = PER_DOMAIN,
    store: Path = STORE,
    backend: str = typer.Option("hf", "--backend", help="hf, vllm or openai."),
    url: str = typer.Option("", "--url", help="openai: the server's address up to /v1."),
    model_dir: Path | None = typer.Option(None, "--model-dir", help="openai: the served checkpoint, for its key."),
    samples: int = SAMPLES,
    temperature: float | None = typer.Option(None, "--temperature", help="Instead of the benchmark's own."),
    top_p: float | None = typer.Option(None, "--top-p", help="Instead of the benchmark's own."),
    max_new_tokens: int | None = typer.Option(None, "--max-new-tokens", help="Instead of the benchmark's own."),
    stop: list[str] = typer.Option([], "--stop", help="A text that ends a completion; may be repeated."),
    prompting: str = typer.Option("", "--prompting", help="chat (of suites), raw (of --problems), template."),
    template: Path | None = typer.Option(None, "--template", help="Jinja file with {{ prompt }}, or a chat template."),
    system: str | None = typer.Option(None, "--system", help="System message of a chat."),
    seed: int = typer.Option(0, "--seed"),
    shard: str = typer.Option("1/1", "--shard", help="I/N: I-th of N shares; or slurm."),
    data: list[str] = DATA,
    option: list[str] = OPTION,
    tensor_parallel: int = typer.Option(1, "--tensor-parallel", help="vllm: GPUs of one model."),
    base: Path | None = typer.Option(None, "--base", help="ruler, leaderboards: every task against this one."),
    limit: int | None = typer.Option(None, "--limit", help="ruler, leaderboards: documents per subtask."),
    paper: str = typer.Option("", "--paper", help="ruler, leaderboards: MODEL:STAGE[:MIXTURE]."),
    timeout: float = typer.Option(3600.0, "--timeout", help="openai: seconds for one answer."),
    workers: int = WORKERS,
    output: str = FORMAT,
    json_output: bool = JSON,
    out: Path | None = OUT,
) -> None:
    """Sample what is missing, then score.  Example: prism eval run exports/mt --suite prism --backend vllm"""
    from prism_nemo.errors import InputError
    from prism_nemo.evaluation.arguments import changed, prompting_of, share, shower
    from prism_nemo.evaluation.backends import open_backend
    from prism_nemo.evaluation.leaderboards import is_retention
    from prism_nemo.evaluation.pipeline import evaluate
    from prism_nemo.evaluation.progress import lines
    from prism_nemo.evaluation.store import GenerationStore
    from prism_nemo.evaluation.tables import score_table

    show, part = shower("json" if json_output else output, out), share(shard)
    if is_retention(suite):
        if prompting not in ("", "raw") or part != (0, 1):
            raise InputError("tasks of the harness are asked raw and in one process; leave out --prompting and --shard")
        served = model if backend == "openai" else ""
        folder = model_dir if served else Path(model)
        if folder is None:
            raise InputError("the harness's tasks need the served checkpoint's folder; give --model-dir")
        through = {"backend": backend, "url": url, "served": served, "timeout_seconds": timeout}
        how = {**through, "tensor_parallel": tensor_parallel, "limit": limit}
        show([_retention(suite, store, folder, base, paper, how)])
        return
    if base or limit or paper:
        raise InputError("--base, --limit and --paper of `eval run` belong to ruler and the leaderboards")
    benchmarks = [
        changed(benchmark, temperature, top_p, max_new_tokens, tuple(stop))
        for benchmark in _benchmarks(suite, problems, per_domain, data, option)
    ]
    asking = prompting_of(prompting or ("chat" if suite else "raw"), template, system)
    with GenerationStore(store) as opened:
        sampler = open_backend(backend, model, asking, opened, url, model_dir, tensor_parallel, timeout)
        scores = evaluate(
            sampler,
            benchmarks,
            opened,
            k=samples or None,
            seed=seed,
            workers=workers,
            shard=part,
            progress=lines(_note),
        )
    if scores:
        show([score_table(scores)])
    else:
        typer.echo(f"share {shard} is sampled; when all are, score with: prism eval score --store {store} ...")


@app.command()
def score(
    suite: str = SUITE,
    problems: Path | None = PROBLEMS,
    per_domain: int = PER_DOMAIN,
    store: Path = STORE,
    model: list[str] = typer.Option([], "--model", help="Name, folder or fingerprint; without it all of the store."),
    samples: int = SAMPLES,
    protocol: list[str] = PROTOCOL,
    seed: int | None = SEED,
    data: list[str] = DATA,
    option: list[str] = OPTION,
    workers: int = WORKERS,
    output: str = FORMAT,
    json_output: bool = JSON,
    out: Path | None = OUT,
) -> None:
    """Scores of what is in the store; samples nothing.  Example: prism eval score --suite aime24 --format markdown"""
    from prism_nemo.errors import InputError
    from prism_nemo.evaluation.arguments import shower
    from prism_nemo.evaluation.pipeline import find_model, score_store
    from prism_nemo.evaluation.progress import lines
    from prism_nemo.evaluation.tables import score_table

    show = shower("json" if json_output else output, out)
    benchmarks = _benchmarks(suite, problems, per_domain, data, option)
    opened = _existing(store)
    scores = score_store(
        opened,
        benchmarks,
        models=[find_model(opened, reference) for reference in model] or None,
        protocols=protocol,
        seed=seed,
        k=samples or None,
        workers=workers,
        progress=lines(_note),
    )
    if not scores:
        raise InputError(f"{store} has no samples of these questions; sample them with: prism eval run MODEL")
    show([score_table(scores)])


@app.command()
def compare(
    models: list[str] = typer.Argument(help="NAME=MODEL or MODEL, the first one is compared with."),
    suite: str = SUITE,
    problems: Path | None = PROBLEMS,
    per_domain: int = PER_DOMAIN,
    store: Path = STORE,
    paper: list[str] = typer.Option([], "--paper", help="NAME=MODEL:STAGE[:MIXTURE], e.g. mt=granite-3.3-8b:mt:mcs."),
    steps: bool = typer.Option(False, "--steps", help="NAMEs are steps of one run: final, joint best, maxima."),
    by: str = typer.Option("avg3", "--by", help="--steps: what the joint best step is best at."),
    samples: int = SAMPLES,
    protocol: list[str] = PROTOCOL,
    seed: int | None = SEED,
    data: list[str] = DATA,
    option: list[str] = OPTION,
    workers: int = WORKERS,
    output: str = FORMAT,
    json_output: bool = JSON,
    out: Path | None = OUT,
) -> None:
    """Paired differences, both averages, the paper.  Example: prism eval compare base=exports/base mt=exports/mt"""
    from prism_nemo.evaluation.arguments import compare_tables, shower
    from prism_nemo.evaluation.progress import lines

    show = shower("json" if json_output else output, out)
    benchmarks = _benchmarks(suite, problems, per_domain, data, option)
    tables = compare_tables(
        _existing(store),
        benchmarks,
        models,
        paper=paper,
        by=by if steps else None,
        protocols=protocol,
        seed=seed,
        k=samples or None,
        workers=workers,
        progress=lines(_note),
    )
    show(tables)


def _retention(
    tasks: str,
    store: Path,
    model: Path,
    base: Path | None,
    paper: str,
    how: dict[str, Any],
) -> "Table":
    from prism_nemo.evaluation.arguments import printed
    from prism_nemo.evaluation.leaderboards import tasks_of
    from prism_nemo.evaluation.progress import lines
    from prism_nemo.evaluation.retention import retained, run_retention
    from prism_nemo.evaluation.tables import retention_table

    chosen = tasks_of(tasks)
    theirs = printed(paper) if paper else {}
    models = [base, model] if base else [model]
    runs = [run_retention(one, chosen, store, **how, progress=lines(_note)) for one in models]
    return retention_table(retained(runs[0], runs[-1]), alone=base is None, printed=theirs)


@app.command("held-out")
def held_out(
    model: Path = typer.Argument(help="Hugging Face folder."),
    documents: Path = typer.Argument(help='File with rows {"text": ...}, or PREFIX of prepared tokens.'),
    against: Path | None = typer.Option(None, "--against", help="Another model: also the paired difference to it."),
    window: int = typer.Option(1024, "--window", help="Longest piece read at once, tokens."),
    max_documents: int = typer.Option(0, "--max-documents", help="0: all."),
    json_output: bool = typer.Option(False, "--json"),
) -> None:
    """Nats per token on held-out documents.  Example: prism eval held-out exports/mt general.jsonl --against base"""
    from prism_nemo.evaluation.held_out import held_out_loss, loss_difference

    found = held_out_loss(model, documents, window=window, max_documents=max_documents)
    record: dict[str, Any] = {"model": str(model), **found.as_record()}
    text = f"{model}: {found.loss.value:.4f} nats/token [{found.loss.low:.4f}, {found.loss.high:.4f}]"
    text += f", {found.documents:,} documents, {found.tokens:,} tokens"
    if against is not None:
        other = held_out_loss(against, documents, window=window, max_documents=max_documents)
        change = loss_difference(other, found)
        record["difference"] = {"to": str(against), "value": change.value, "low": change.low, "high": change.high}
        text += f"\n{change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}] against {against}"
    typer.echo(json.dumps(record) if json_output else text)


def _benchmarks(
    suite: str, problems: Path | None, per_domain: int, data: list[str], option: list[str]
) -> "list[Benchmark]":
    from prism_nemo.evaluation.arguments import benchmarks_of

    return benchmarks_of(suite, problems, per_domain, data, option)


def _existing(store: Path) -> "GenerationStore":
    from prism_nemo.errors import InputError
    from prism_nemo.evaluation.store import GenerationStore

    if not (store / "store.json").is_file():
        raise InputError(f"{store} is no generation store; sample first with: prism eval run MODEL --store {store}")
    return GenerationStore(store)


def _note(line: str) -> None:
    typer.echo(line, err=True)

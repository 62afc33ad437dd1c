"""`prism data`: tokenize and blend a mixture, pack it, look at the result, check it."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from prism_nemo.data.work import Progress

app = typer.Typer(help="Tokenize, blend and pack a mixture; look at the result.", no_args_is_help=True)

_UNITS = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


@app.command()
def prepare(
    mixture: str = typer.Argument(help="A name in data_prep/mixtures, or a YAML file."),
    tokenizer: Path = typer.Option(..., help="Hugging Face tokenizer folder."),
    tokens: str = typer.Option(..., help="Training tokens, as 26.2B."),
    out: Path = typer.Option(..., help="Folder to make."),
    workers: int = typer.Option(os.cpu_count() or 1, help="Processes."),
    seq_length: int = typer.Option(8192, help="Of the trainer, in tokens."),
    valid_tokens: str = typer.Option("1M", help="Held-out tokens, the same number from every source."),
    test_tokens: str = typer.Option("0", help="Further held-out tokens."),
    seed: int = typer.Option(42, help="Of the draw of documents."),
    source: list[str] = typer.Option([], help="NAME=PATH: local files of a source (or NAME.PART=PATH)."),
    benchmark: list[str] = typer.Option([], help="NAME=PATH: local file of a benchmark to check against."),
    decontaminate: bool = typer.Option(True, help="Check documents against the mixture's benchmark list."),
    max_epochs: float | None = typer.Option(None, help="Instead of every source's own limit."),
    encoder: str = typer.Option("auto", help="auto, gigatoken, fastokens or tokenizers."),
    shard: str | None = typer.Option(None, help="I/N: make only every N-th shard, I from 0; then run once without it."),
    cache: Path | None = typer.Option(None, help="Keep shards here for other mixtures and budgets."),
    strict: bool = typer.Option(False, "--strict", help="Stop at the first bad row."),
    max_bad_fraction: float = typer.Option(0.01, help="Stop when more of a source's rows are bad."),
    max_document_bytes: int = typer.Option(32 << 20, help="Longer documents (UTF-8) are bad rows."),
    force: bool = typer.Option(False, "--force", help="Rebuild."),
    json_output: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """Token files for Megatron.  Example: prism data prepare math_code --tokenizer T --tokens 26.2B --out mc"""
    import dataclasses

    from prism_nemo.data.mixture import load_mixture, with_max_epochs
    from prism_nemo.data.prepare import prepare as run

    chosen = load_mixture(mixture, _pairs(source, "--source"))
    if not decontaminate:
        chosen = dataclasses.replace(chosen, decontamination=None)
    if max_epochs is not None:
        chosen = with_max_epochs(chosen, max_epochs)
    with _Reporter() as reporter:
        run(
            chosen,
            tokenizer,
            _number(tokens),
            out,
            workers=workers,
            seed=seed,
            seq_length=seq_length,
            strict=strict,
            max_bad_fraction=max_bad_fraction,
            max_document_bytes=max_document_bytes,
            shard=_shard(shard),
            encoder=encoder,
            valid_tokens=_number(valid_tokens),
            test_tokens=_number(test_tokens),
            cache=cache,
            benchmarks={name: Path(path) for name, path in _pairs(benchmark, "--benchmark").items()},
            force=force,
            on_progress=reporter,
            on_warning=lambda line: typer.echo(f"warning: {line}", err=True),
        )
    if shard is None:
        show(out, json_output=json_output, blend=False, files=False)
    else:
        typer.echo(f"shard {shard} done; when all are, run the same command without --shard")


@app.command()
def pack(
    folder: Path = typer.Argument(help="A prepared data set."),
    out: Path = typer.Option(..., help="Folder to make: a data set again, of whole training sequences."),
    seq_length: int = typer.Option(131_072, help="The trainer's sequence length in tokens."),
    overlap: int = typer.Option(0, help="Tokens that two pieces of a longer document have in common."),
    minimum: int = typer.Option(0, help="Leave out documents with fewer tokens."),
    force: bool = typer.Option(False, "--force", help="Rebuild."),
    json_output: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """Documents packed for long context.  Example: prism data pack data/long --out data/long_packed --overlap 1024"""
    from prism_nemo.data.packed import pack_blend

    with _Reporter() as reporter:
        pack_blend(
            folder, out, seq_length=seq_length, overlap=overlap, minimum=minimum, force=force, on_progress=reporter
        )
    show(out, json_output=json_output, blend=False, files=False)


@app.command()
def show(
    folder: Path,
    json_output: bool = typer.Option(False, "--json", help="The report as JSON."),
    blend: bool = typer.Option(False, "--blend", help="The blend with absolute prefixes, as Megatron takes it."),
    files: bool = typer.Option(False, "--files", help="The tree of source files with their fingerprints."),
) -> None:
    """What is in a prepared data set.  Example: prism data show data/mc"""
    from rich.console import Console

    from prism_nemo.artifacts import read_manifest
    from prism_nemo.data.blend import blend_paths, read_report
    from prism_nemo.data.speed import Speed
    from prism_nemo.data.table import print_files, print_report

    report = read_report(folder)
    if blend:
        typer.echo(json.dumps(blend_paths(folder), indent=1))
        return
    if json_output:
        typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    console = Console(width=None if sys.stdout.isatty() else 200)
    if files:
        print_files(report, console)
        return
    print_report(report, console)
    metrics = read_manifest(folder).metrics
    if "encoder" in metrics:
        typer.echo(f"encoder {metrics['encoder']['name']} ({metrics['encoder']['reason']})")
    if line := Speed(**metrics.get("speed", {})).line():
        typer.echo(line)


@app.command()
def verify(folder: Path) -> None:
    """Re-hash it, and check indices, counts and document ends.  Example: prism data verify data/mc"""
    from prism_nemo.data.verify import verify_blend
    from prism_nemo.errors import PrismError

    problems = verify_blend(folder)
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise PrismError(f"{folder} is not what it was: {'; '.join(problems[:3])}{more}; prepare it again with --force")
    typer.echo(f"{folder}: every file as it was written, every document ends with its end token")


def _number(text: str) -> int:
    """`26.2B` -> 26200000000."""
    from prism_nemo.errors import InputError

    scale = _UNITS.get(text[-1:].lower(), 1)
    try:
        return round(float(text[:-1] if scale > 1 else text) * scale)
    except (ValueError, OverflowError):
        raise InputError(f"{text!r} is no number of tokens; write it like 500M or 26.2B") from None


def _pairs(entries: list[str], option: str) -> dict[str, Any]:
    from prism_nemo.errors import InputError

    pairs = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (equals and name and value):
            raise InputError(f"{option} {entry}: expected NAME=PATH")
        pairs[name] = value
    return pairs


def _shard(text: str | None) -> tuple[int, int] | None:
    from prism_nemo.errors import InputError

    if text is None:
        return None
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit()):
        raise InputError(f"--shard {text}: expected I/N, such as 0/8")
    return int(first), int(count)


class _Reporter:
    """A bar on a terminal; elsewhere a line at most every ten seconds."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._started = self._last = self._before = time.monotonic()
        self._done = 0
        self._show: Callable[[Progress], None] = self._draw if sys.stderr.isatty() else self._line

    def __enter__(self) -> "_Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, progress: "Progress") -> None:
        self._show(progress)

    def _draw(self, progress: "Progress") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._bar.start()
            self._bar.add_task("", total=progress.bytes_total)
        task = self._bar.tasks[0].id
        self._bar.update(task, description=progress.source, completed=progress.bytes_done, total=progress.bytes_total)

    def _line(self, progress: "Progress") -> None:
        now = time.monotonic()
        if progress.bytes_done < self._done:  # a second look, at more of some source, began after the last word
            self._started = self._before
        self._done, self._before = progress.bytes_done, now
        if now - self._last < 10 and progress.bytes_done < progress.bytes_total:
            return
        self._last = now
        rate = (progress.bytes_made or progress.bytes_done) / max(now - self._started, 1e-9)
        left = (progress.bytes_total - progress.bytes_done) / max(rate, 1e-9)
        share = progress.bytes_done / max(progress.bytes_total, 1)
        line = f"{progress.source}: {share:.0%} of {progress.bytes_total / 1e6:,.0f} MB, {rate / 1e6:.1f} MB/s"
        print(f"{line}, about {left:.0f} s left", file=sys.stderr, flush=True)

"""`prism data prepare`: from a mixture to token files that Megatron's BlendedDataset reads.

Shards (one per unit of work, made by any number of processes), then one pass over their records that removes
duplicates, holds out and draws to the budget, then the files. Shards are kept until the artifact is whole, so that a
killed run goes on.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from prism_nemo.artifacts import Draft, Request, is_up_to_date, publish
from prism_nemo.artifacts.disk import writing
from prism_nemo.data.assemble import Shard, write_log, write_split
from prism_nemo.data.contamination import build_screen
from prism_nemo.data.encode import load_encoder, read_tokenizer, tokenizer_input
from prism_nemo.data.files import UNIT_BYTES, plan_units
from prism_nemo.data.indexed import token_dtype
from prism_nemo.data.mixture import Mixture, Source
from prism_nemo.data.plan import Plan
from prism_nemo.data.sample import check_readable, sample_sources, self_test_texts
from prism_nemo.data.select import SPLITS, Budget, fates, sift
from prism_nemo.data.selftest import choose_encoder
from prism_nemo.data.shard import RECORD, Job
from prism_nemo.data.speed import Clock, Speed
from prism_nemo.data.stretch import first_bounds, read_enough
from prism_nemo.data.summary import source_report, write_summary
from prism_nemo.data.supply import check_supply, expected_shortages
from prism_nemo.data.work import BadRows, Progress, Stretch, hash_files, make_shards
from prism_nemo.errors import InputError

MAX_DOCUMENT_BYTES = 32 << 20


def prepare(
    mixture: Mixture,
    tokenizer: Path,
    tokens: int,
    out: Path,
    *,
    workers: int = 1,
    seed: int = 42,
    seq_length: int = 8192,
    strict: bool = False,
    max_bad_fraction: float = 0.01,
    shard: tuple[int, int] | None = None,
    encoder: str = "auto",
    valid_tokens: int = 1_000_000,
    test_tokens: int = 0,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
    unit_bytes: int = UNIT_BYTES,
    cache: Path | None = None,
    benchmarks: Mapping[str, Path] | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Path:
    """Prepare `mixture` for `tokens` training tokens and publish it at `out`; returns `out`.

    `tokenizer`: Hugging Face tokenizer folder. `seq_length`: the trainer's, in tokens. `valid_tokens`, `test_tokens`:
    held out in all, the same number from every source, from documents that are never trained on. `max_bad_fraction`:
    share of a source's rows that may be quarantined. `shard` (i, n) makes only every n-th shard, from number i on,
    and returns without publishing: a later call without it puts all together. `cache`: folder that keeps shards for
    other mixtures and budgets (of sources that are read as far). `benchmarks`: benchmark name -> local file in place of
    the hub's. `max_document_bytes`: longer documents are quarantined. `unit_bytes`: size of a unit of work. None of
    workers, shard, encoder and cache changes a byte of the result. `on_warning` is told, before any work, of sources
    that will probably be repeated more often than allowed.

    Raises InputError for bad input and for a budget that a source cannot fill within its `max_epochs`, PrismError when
    too many rows are bad.
    """
    out = Path(out)
    clock = Clock()
    _check(tokens, seq_length, valid_tokens, test_tokens, shard)
    _check_limits(workers, max_bad_fraction, max_document_bytes)
    facts = read_tokenizer(tokenizer)
    units = plan_units(mixture, unit_bytes)
    work = cache or out.parent / f".{out.name}.work"
    with writing(out):
        samples = sample_sources(mixture, units)
        if max_bad_fraction < 1:
            check_readable(mixture, samples)
        files = hash_files(units, mixture, work, workers)
        name, reason = choose_encoder(encoder, facts, self_test_texts(samples))
        screen, screen_print = build_screen(mixture.decontamination, work, benchmarks or {})
        job = Job(
            mixture=mixture,
            tokenizer=facts,
            encoder=name,
            seed=seed,
            screen=screen,
            screen_fingerprint=screen_print,
            max_document_bytes=max_document_bytes,
            strict=strict,
            files=files,
        )
        plan = Plan(
            job=job,
            units=units,
            samples=samples,
            tokens=tokens,
            seq_length=seq_length,
            valid_tokens=valid_tokens,
            test_tokens=test_tokens,
            max_bad_fraction=max_bad_fraction,
            encoder_reason=reason,
        )
        request = _request(plan, tokenizer)
        if _stands(out, request, work, force, keep_work=cache is not None):
            return out
        shards, speed = _shards(plan, work / "shards", workers, shard, on_progress, on_warning)
        if shard is not None:
            return out
        _check_bad_rows(shards, plan)
        _publish(plan, request, shards, out, speed, clock)
    if cache is None:
        shutil.rmtree(work)
    return out


def _stands(out: Path, request: Request, work: Path, force: bool, keep_work: bool) -> bool:
    """`is_up_to_date`, without leaving an empty work folder behind when there is nothing to do."""
    try:
        done = is_up_to_date(out, request, force=force)
    except InputError:
        if not (keep_work or (work / "shards").exists()):
            shutil.rmtree(work)
        raise
    if done and not keep_work:
        shutil.rmtree(work)
    return done


def _publish(plan: Plan, request: Request, shards: list[Shard], out: Path, speed: Speed, clock: Clock) -> None:
    files = Clock()
    with publish(out, request) as draft:
        _assemble(plan, shards, draft)
        speed.file_seconds = files.wall()
        draft.metrics["speed"] = dataclasses.asdict(speed)
        draft.metrics["encoder"] = {"name": plan.job.encoder, "reason": plan.encoder_reason}
        draft.metrics["seconds"] = round(clock.wall(), 3)


def _check(tokens: int, seq_length: int, valid: int, test: int, shard: tuple[int, int] | None) -> None:
    if tokens < 1 or seq_length < 1 or valid < 0 or test < 0:
        raise InputError(
            f"tokens {tokens}, seq_length {seq_length}, valid_tokens {valid}, test_tokens {test}: too small"
        )
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise InputError(f"shard {shard[0]}/{shard[1]}: the first number counts from 0 and must be below the second")


def _check_limits(workers: int, max_bad_fraction: float, max_document_bytes: int) -> None:
    if workers < 1 or max_document_bytes < 1:
        raise InputError(f"workers {workers}, max_document_bytes {max_document_bytes}: too small")
    if not 0 <= max_bad_fraction <= 1:
        raise InputError(f"max_bad_fraction {max_bad_fraction:g} must be from 0 to 1")


def _request(plan: Plan, tokenizer: Path) -> Request:
    job = plan.job
    files = {name: entry["xxh3_128"] for source in job.mixture.sources for name, entry in plan.files(source).items()}
    mixture = dataclasses.asdict(job.mixture)
    del mixture["note"], mixture["decontamination"]  # what is screened counts, not what the list is called
    for source in mixture["sources"]:
        for part in source["parts"]:
            del part["path"], part["note"]  # what is read counts, not where it lies
    parameters = {
        "mixture": mixture,
        "files": files,
        "tokenizer": job.tokenizer.fingerprint,
        "screen": job.screen_fingerprint,
        "tokens": plan.tokens,
        "seed": job.seed,
        "seq_length": plan.seq_length,
        "valid_tokens": plan.valid_tokens,
        "test_tokens": plan.test_tokens,
        "max_document_bytes": job.max_document_bytes,
    }
    artifacts = {
        f"source {source.name}" + (f".{part.name}" if part.name else ""): Path(part.path)
        for source in job.mixture.sources
        for part in source.parts
        if part.path and (Path(part.path) / "artifact.json").is_file()
    }
    return Request(kind="blend", parameters=parameters, inputs={"tokenizer": tokenizer_input(tokenizer), **artifacts})


def _shards(
    plan: Plan,
    folder: Path,
    workers: int,
    shard: tuple[int, int] | None,
    on_progress: Callable[[Progress], None] | None,
    on_warning: Callable[[str], None] | None,
) -> tuple[list[Shard], Speed]:
    """All shards of the plan, made or found, in the order of units; with `shard`, only its own first stretches."""
    budgets, bounds = _first_look(plan, on_warning)
    speed, clock = Speed(), Clock()

    def make(stretches: list[Stretch]) -> list[Shard]:
        folders, own = make_shards(plan.job, stretches, folder, workers, plan.max_bad_fraction, on_progress)
        shards = [
            Shard(unit=unit, folder=made, low=low) for (unit, low, _), made in zip(stretches, folders, strict=True)
        ]
        speed.bytes += sum(shards[index].unit.bytes for index in own)
        speed.tokens += sum(int(shards[index].records()["tokens"].sum(dtype=np.int64)) for index in own)
        return shards

    if shard is not None:
        return make([(unit, 0, bounds[unit.source]) for unit in plan.units[shard[0] :: shard[1]]]), speed
    shards = read_enough(plan.units, bounds, budgets, make)
    speed.cpu_seconds = clock.cpu()
    return shards, speed


def _first_look(plan: Plan, on_warning: Callable[[str], None] | None) -> tuple[list[Budget], list[int]]:
    """The budgets of all sources and the upper draw keys of their first stretches, with warnings of shortages."""
    mixture = plan.job.mixture
    encode = load_encoder(plan.job.encoder, plan.job.tokenizer)
    budgets = [plan.budget(source) for source in mixture.sources]
    pairs = zip(plan.samples, mixture.sources, strict=True)
    estimates = [sample.estimate(source, encode) for sample, source in pairs]
    for line in expected_shortages(mixture.sources, budgets, estimates):
        if on_warning:
            on_warning(line)
    return budgets, first_bounds(mixture, estimates, budgets)


def _check_bad_rows(shards: list[Shard], plan: Plan) -> None:
    tally = BadRows(plan.job.mixture, plan.max_bad_fraction)
    for shard in shards:
        tally.add(shard.unit, shard.folder)
    tally.check(0)


def _assemble(plan: Plan, shards: list[Shard], draft: Draft) -> None:
    """Files, blend and report of all sources into the draft; nothing is written when one of them falls short."""
    records = [shard.records() for shard in shards]
    parts = _parts(plan, shards, [len(table) for table in records])
    repeated, over = sift(np.concatenate(records) if records else np.zeros(0, RECORD), parts)
    bounds = np.cumsum([0, *(len(table) for table in records)])
    reports, files = [], []
    for number, source in enumerate(plan.job.mixture.sources):
        own = [index for index, shard in enumerate(shards) if shard.unit.source == number]
        lengths = [len(records[index]) for index in own]
        table = np.concatenate([records[index] for index in own]) if own else np.zeros(0, RECORD)
        place = slice(bounds[own[0]], bounds[own[-1] + 1]) if own else slice(0)
        fate = fates(table, repeated[place], over[place], plan.budget(source), plan.job.seed)
        pieces = np.split(fate, np.cumsum(lengths)[:-1]) if own else []
        chosen = list(zip([shards[index] for index in own], pieces, strict=True))
        reports.append(source_report(plan, source, chosen, table, fate))
        check_supply(reports[-1], source)
        files.append(chosen)
    for source, chosen in zip(plan.job.mixture.sources, files, strict=True):
        _write_source(draft.path, plan, source, chosen)
    write_summary(draft, plan, reports)


def _parts(plan: Plan, shards: list[Shard], lengths: list[int]) -> list[tuple[int, int | None]]:
    """Documents and `max_documents` of each part of a source, in the order of the shards, which is the mixture's."""
    sizes: dict[tuple[int, int], int] = {}
    for shard, length in zip(shards, lengths, strict=True):
        place = shard.unit.source, shard.unit.part
        sizes[place] = sizes.get(place, 0) + length
    sources = plan.job.mixture.sources
    return [(size, sources[source].parts[part].max_documents) for (source, part), size in sizes.items()]


def _write_source(folder: Path, plan: Plan, source: Source, chosen: list[tuple[Shard, np.ndarray]]) -> None:
    dtype = token_dtype(plan.job.tokenizer.vocab_size)
    for split in SPLITS:
        write_split(folder, split, source.name, chosen, dtype)
    shards = [shard for shard, _ in chosen]
    for log in ("quarantine", "contaminated"):
        write_log(folder, log, source.name, shards)

"""The report of a prepared data set, put together from receipts and fates."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from prism_nemo.artifacts import Draft
from prism_nemo.data.assemble import Shard
from prism_nemo.data.blend import drawn_samples, write_blend
from prism_nemo.data.mixture import Source
from prism_nemo.data.plan import Plan
from prism_nemo.data.report import Count, SourceReport
from prism_nemo.data.select import FATES, OVER_LIMIT, SPLITS
from prism_nemo.errors import PrismError

SIMULATED_SAMPLES = 20_000


def source_report(
    plan: Plan, source: Source, chosen: list[tuple[Shard, np.ndarray]], table: np.ndarray, fate: np.ndarray
) -> SourceReport:
    """What became of one source's rows. Raises PrismError when a row is not accounted for."""
    receipts = [shard.receipt() for shard, _ in chosen]
    first = [receipt for (shard, _), receipt in zip(chosen, receipts, strict=True) if shard.low == 0]
    rows = sum(receipt.rows for receipt in first)
    report = SourceReport(
        name=source.name,
        domain=source.domain,
        licence=source.licence,
        rows=rows,
        text_bytes=sum(receipt.text_bytes for receipt in receipts),
        filtered=_added(receipt.filtered for receipt in receipts),
        quarantined=_added(receipt.quarantined for receipt in receipts),
        not_drawn=sum(receipt.not_drawn for receipt in first)
        - sum(
            receipt.rows - receipt.not_drawn
            for (shard, _), receipt in zip(chosen, receipts, strict=True)
            if shard.low > 0
        ),
        share_asked=source.weight,
        eod_inside=sum(receipt.eod_inside for receipt in receipts),
    )
    for number, name in enumerate(FATES):
        own = table["tokens"][fate == number]
        setattr(report, name, Count(documents=len(own), tokens=int(own.sum(dtype=np.int64))))
    if over := int(np.count_nonzero(fate == OVER_LIMIT)):
        report.filtered["max_documents"] = over
    report.files = plan.files(source)
    if report.balance:
        raise PrismError(
            f"source {source.name}: {report.balance} rows are not accounted for; this is a bug, please report it"
        )
    read = max(report.rows - report.not_drawn, 1)
    report.population = round((report.train.tokens + report.left_over.tokens) * report.rows / read)
    report.tokens_drawn = plan.budget(source).train
    report.epochs = report.tokens_drawn / report.population if report.population else 0.0
    return report


def _added(counts: Iterator[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for reason, number in count.items():
            total[reason] = total.get(reason, 0) + number
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))


def write_summary(draft: Draft, plan: Plan, reports: list[SourceReport]) -> None:
    """`blend.json` and `report.json`."""
    samples = min(SIMULATED_SAMPLES, max(1, plan.tokens // plan.seq_length))
    counts = drawn_samples([report.share_asked for report in reports], samples)
    for report, count in zip(reports, counts, strict=True):
        report.share_drawn = float(count / samples)
    shares = {
        split: {report.name: report.share_asked for report in reports if getattr(report, split).documents}
        for split in SPLITS
    }
    write_blend(draft.path, shares)
    sources = [dataclasses.asdict(report) for report in reports]
    summary: dict[str, Any] = {
        "mixture": plan.job.mixture.name,
        "tokens": plan.tokens,
        "seq_length": plan.seq_length,
        "seed": plan.job.seed,
        "tokenizer": plan.job.tokenizer.fingerprint,
        "vocab_size": plan.job.tokenizer.vocab_size,
        "eod": plan.job.tokenizer.eod,
        "prefix": plan.job.tokenizer.prefix,
        "sources": sources,
    }
    (draft.path / "report.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    for name in ("rows", "text_bytes"):
        draft.metrics[name] = sum(entry[name] for entry in sources)
    draft.metrics["train_tokens"] = sum(report.train.tokens for report in reports)

"""`prism data pack`: a prepared data set again, with its documents packed into whole training sequences.

The blend's weights act on sequences. They are divided by each source's fill rate, so that the shares of real tokens
stay those that the mixture asks for.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prism_nemo.artifacts import Draft, Request, is_up_to_date, publish
from prism_nemo.data.blend import drawn_samples, read_report, source_prefixes, write_blend
from prism_nemo.data.pack import PackReport, cut_documents, pack
from prism_nemo.data.select import SPLITS
from prism_nemo.data.summary import SIMULATED_SAMPLES
from prism_nemo.data.work import Progress
from prism_nemo.errors import InputError

Packed = dict[str, dict[str, PackReport]]
"""Split -> source -> what was packed."""


def pack_blend(
    blend: Path,
    out: Path,
    *,
    seq_length: int,
    overlap: int = 0,
    minimum: int = 0,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Pack every split of the prepared data set `blend` and publish the result, a data set as well, at `out`.

    `seq_length`: the trainer's, in tokens; every document of the result has exactly that length. `overlap`: tokens that
    two pieces of a longer document have in common. `minimum`: shorter documents are left out, and counted. Train with
    `eod_mask_loss`: empty room is filled with end-of-document tokens. The result depends on the arguments alone, and a
    killed call goes on where it stopped.

    Raises InputError when `blend` is no prepared data set, or `minimum` leaves nothing of a source to train on.
    """
    report = read_report(blend)
    if report.get("packed"):
        raise InputError(f"{blend} is packed already; give the data set that it was made from")
    cut_documents(np.zeros(0, np.int64), seq_length, overlap=overlap)  # refuses a wrong overlap before any work
    parameters = {"seq_length": seq_length, "overlap": overlap, "minimum": minimum}
    request = Request(kind="packed", parameters=parameters, inputs={"blend": blend})
    if is_up_to_date(out, request, force=force):
        return out
    with publish(out, request, resume=True) as draft:
        packed: Packed = {split: {} for split in SPLITS}
        progress = _Follower(blend, on_progress)
        for split, name, source in _files(blend):
            (draft.path / split).mkdir(exist_ok=True)
            packed[split][name] = pack(
                source,
                draft.path / split / name,
                capacity=seq_length,
                end_of_document=report["eod"],
                overlap=overlap,
                minimum=minimum,
                on_buffer=progress.of(source),
            )
        _drop_empty(draft.path, packed)
        _summary(draft, report, packed, parameters)
    return out


def _files(blend: Path) -> Iterator[tuple[str, str, Path]]:
    for split in SPLITS:
        for name, prefix in source_prefixes(blend, split).items():
            yield split, name, prefix


class _Follower:
    """Bytes of the sources that were read so far, as progress."""

    def __init__(self, blend: Path, tell: Callable[[Progress], None] | None) -> None:
        self._tell = tell
        self._sizes = {prefix: prefix.with_name(f"{prefix.name}.bin").stat().st_size for *_, prefix in _files(blend)}
        self._before = 0

    def of(self, source: Path) -> Callable[[int, int], None] | None:
        tell = self._tell
        if tell is None:
            return None
        before, size, total = self._before, self._sizes[source], sum(self._sizes.values())
        self._before += size
        return lambda done, count: tell(
            Progress(source=source.name, bytes_done=before + size * done // count, bytes_total=total)
        )


def _drop_empty(folder: Path, packed: Packed) -> None:
    """Remove splits of sources with nothing left; the training split of each has to hold something."""
    for split, reports in packed.items():
        for name in [name for name, report in reports.items() if not report.buffers]:
            if split == "train":
                short = reports[name].documents_too_short
                raise InputError(f"source {name}: all {short} documents are shorter than the minimum; lower it")
            for suffix in (".bin", ".idx"):
                (folder / split / f"{name}{suffix}").unlink()
            del reports[name]


def _summary(draft: Draft, old: dict[str, Any], packed: Packed, parameters: dict[str, int]) -> None:
    """`blend.json` and `report.json`."""
    asked = {source["name"]: source["share_asked"] for source in old["sources"]}
    shares = {
        split: _normalized({name: asked[name] / report.fill_rate for name, report in reports.items()})
        for split, reports in packed.items()
    }
    write_blend(draft.path, shares)
    samples = min(SIMULATED_SAMPLES, max(1, old["tokens"] // parameters["seq_length"]))
    drawn = _drawn_tokens(shares["train"], packed["train"], samples)
    kept = ("mixture", "tokens", "seed", "tokenizer", "vocab_size", "eod", "prefix")
    sources = [_entry(source, packed, shares["train"], drawn, old["tokens"], parameters) for source in old["sources"]]
    summary = {**{key: old[key] for key in kept}, **parameters, "packed": True, "sources": sources}
    (draft.path / "report.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    draft.metrics["buffers"] = sum(report.buffers for report in packed["train"].values())
    draft.metrics["fill_rate"] = {name: report.fill_rate for name, report in packed["train"].items()}


def _normalized(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _drawn_tokens(shares: dict[str, float], reports: dict[str, PackReport], samples: int) -> dict[str, float]:
    """Share of each source in the real tokens of the first samples that the trainer draws."""
    counts = drawn_samples(list(shares.values()), samples)
    return _normalized(
        {name: float(count) * reports[name].fill_rate for name, count in zip(shares, counts, strict=True)}
    )


def _entry(
    source: dict[str, Any],
    packed: Packed,
    shares: dict[str, float],
    drawn: dict[str, float],
    tokens: int,
    parameters: dict[str, int],
) -> dict[str, Any]:
    name, length = source["name"], parameters["seq_length"]
    entry = {key: source[key] for key in ("name", "domain", "licence", "share_asked", "files")}
    entry["share_drawn"] = drawn[name]
    part = source["train"]["tokens"] / source["population"]  # of what there is was prepared, and packed
    entry["epochs"] = part * tokens * shares[name] / (packed["train"][name].buffers * length)
    for split, reports in packed.items():
        buffers = reports[name].buffers if name in reports else 0
        entry[split] = {"documents": buffers, "tokens": buffers * length}
    entry["packed"] = {split: dataclasses.asdict(reports[name]) for split, reports in packed.items() if name in reports}
    return entry

"""The report for a program: everything the page says, as plain values."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prism_nemo.report.claims import claims, weight_changes
from prism_nemo.report.run import Run

FORMAT = 1
ANALYSES = ("cka", "long_context", "landscape", "behaviour", "trajectory")
"""Reports that are short enough to be told whole."""


def facts(runs: Sequence[Run]) -> dict[str, Any]:
    """The content of report.json. Shares are fractions of 1, times seconds, losses nats per token."""
    return dict(_finite({"format": FORMAT, "runs": [_run(run) for run in runs]}))


def _finite(value: Any) -> Any:
    """JSON has no NaN: what could not be measured becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "recipe": run.recipe,
        "scores": run.scores,
        "claims": [dataclasses.asdict(claim) for claim in claims(run)],
        "data": run.blends,
        "training": {stage: _last(rows) for stage, rows in run.curves.items()},
        "weights": _weights(run),
        **{name: run.analyses.get(name) for name in ANALYSES},
        "proofs": run.proofs,
        "stages": [_stage(run, name) for name in run.order],
        "seconds": round(run.seconds, 2),
    }


def _last(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last logged step, and beside it the last loss of each held-out split, such as `valid_loss`."""
    steps = [row for row in rows if "split" not in row]
    return {**(steps[-1] if steps else {}), **{f"{row['split']}_loss": row["loss"] for row in rows if "split" in row}}


def _weights(run: Run) -> dict[str, Any] | None:
    """The totals; every tensor stands in the analysis itself."""
    if "weights" not in run.analyses:
        return None
    mt, rl = weight_changes(run.analyses["weights"])
    return {"base_to_mt": mt, "mt_to_rl": rl}


def _stage(run: Run, name: str) -> dict[str, Any]:
    record, manifest = run.records.get(name, {}), run.manifests.get(name)
    return {
        "name": name,
        "state": record.get("state", "not recorded"),
        "seconds": record.get("seconds"),
        "kind": manifest.kind if manifest else None,
        "fingerprint": run.fingerprints.get(name),
        "program_version": manifest.program_version if manifest else None,
        "git_commit": manifest.git_commit if manifest else None,
    }

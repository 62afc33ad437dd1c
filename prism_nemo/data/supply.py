"""Whether the sources hold enough for the budget: an estimate before any work, the exact count after it."""

from collections.abc import Sequence

from prism_nemo.data.mixture import Source
from prism_nemo.data.report import SourceReport
from prism_nemo.data.sample import Estimate
from prism_nemo.data.select import Budget
from prism_nemo.errors import InputError, PrismError

FAR_OFF = 2.0
"""A sample's estimate may be wrong; one that falls short by more than this factor is believed."""


def expected_shortages(
    sources: Sequence[Source], budgets: Sequence[Budget], estimates: Sequence[Estimate | None]
) -> list[str]:
    """A line for every source that would probably be repeated more often than its `max_epochs`.

    `estimates`: tokens there are; None is unknown. Raises InputError when one that is believed says that it is out of
    the question.
    """
    lines = []
    for source, budget, estimate in zip(sources, budgets, estimates, strict=True):
        if estimate is None or source.max_epochs is None or budget.train <= source.max_epochs * estimate.tokens:
            continue
        tokens = estimate.tokens
        most = tokens * source.max_epochs / source.weight
        line = (
            f"source {source.name} has about {tokens:,.0f} tokens, its share of the budget asks for "
            f"{budget.train:,}: about {budget.train / tokens:.1f} epochs, max_epochs is {source.max_epochs:g}; ask for "
            f"at most about {most:,.0f} tokens, lower its weight or raise max_epochs"
        )
        if estimate.believed and budget.train > FAR_OFF * source.max_epochs * tokens:
            raise InputError(line)
        lines.append(line)
    return lines


def check_supply(report: SourceReport, source: Source) -> None:
    """Raises PrismError when a source has nothing to train on, InputError when too little for its `max_epochs`."""
    if not report.train.documents:
        raise PrismError(
            f"source {source.name} has no document left to train on ({report.rows} rows: "
            f"{sum(report.filtered.values())} filtered, {sum(report.quarantined.values())} bad, "
            f"{report.duplicate.documents} duplicate, {report.contaminated.documents} contaminated, "
            f"{report.short.documents} too short); check its filter and files"
        )
    if source.max_epochs is not None and report.epochs > source.max_epochs:
        most = int(report.population * source.max_epochs / source.weight)
        raise InputError(
            f"source {source.name} has {report.population:,} tokens, its share of the budget asks for "
            f"{report.tokens_drawn:,}: {report.epochs:.2f} epochs, max_epochs is {source.max_epochs:g}; "
            f"ask for at most {most:,} tokens, lower its weight or raise max_epochs"
        )

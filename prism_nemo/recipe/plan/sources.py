"""Tokens and epochs of every source of the mixtures, against what is known to be there."""

from dataclasses import dataclass

from prism_nemo.recipe.mixtures import mixtures, own_files
from prism_nemo.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlan:
    """One source of a mixture."""

    stage: str
    """midtrain or long_context."""
    name: str
    domain: str
    share: float
    """Of the training tokens, 0 to 1."""
    tokens: int
    """Training tokens it supplies."""
    population: float | None
    """Tokens there are, as its publisher or the paper says; None: not known before the data is read, as of a user's own
    files."""
    max_epochs: float | None
    """Most repetitions allowed."""

    @property
    def epochs(self) -> float | None:
        """How often each of its tokens is seen; None when the population is not known."""
        return self.tokens / self.population if self.population else None


def source_plans(recipe: Recipe) -> tuple[list[SourcePlan], str]:
    """The sources in the order of the mixtures, and a line that says why there are none (empty when there are).

    Raises InputError for a mixture or source that does not exist.
    """
    if recipe.data.rehearsal:
        return [], "a rehearsal draws its shares from the text of this machine"
    found = []
    for stage, mixture in mixtures(recipe).items():
        own = own_files(recipe, mixture)
        found += [
            SourcePlan(
                stage=stage,
                name=source.name,
                domain=source.domain,
                share=source.weight,
                tokens=round(source.weight * getattr(recipe, stage).tokens),
                population=None if own.keys() & source.local_names() else source.tokens,
                max_epochs=source.max_epochs,
            )
            for source in mixture.sources
        ]
    return found, ""


def source_warnings(sources: list[SourcePlan]) -> list[str]:
    """Sources that would be repeated more often than allowed."""
    return [
        f"{source.stage}: source {source.name} is too small: {source.tokens / 1e9:.2f}B tokens wanted of"
        f" {(source.population or 0) / 1e9:.2f}B are {source.epochs:.1f} epochs,"
        f" at most {source.max_epochs:g} are allowed"
        for source in sources
        if source.epochs is not None and source.max_epochs is not None and source.epochs > source.max_epochs
    ]

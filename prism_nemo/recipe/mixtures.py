"""The mixtures of a recipe, with the user's own files in them."""

from prism_nemo.data.mixture import Mixture, load_mixture, suggestion, with_local_data
from prism_nemo.errors import InputError
from prism_nemo.recipe.recipe import Recipe


def mixtures(recipe: Recipe) -> dict[str, Mixture]:
    """midtrain, and long_context where the recipe has it -> its mixture; `data.sources` go to those that have them.

    Raises InputError for a mixture that does not exist and for a source that none of them has.
    """
    named = {"midtrain": recipe.data.mixture}
    if recipe.long_context is not None:
        named["long_context"] = recipe.long_context.mixture
    found = {stage: load_mixture(name) for stage, name in named.items()}
    known = {name for mixture in found.values() for name in mixture.local_names()}
    for name in recipe.data.sources:
        if name not in known:
            where = " or ".join(mixture.name for mixture in found.values())
            raise InputError(f"data.sources.{name}: {where} has no source {name!r}{suggestion(name, known)}")
    return {stage: with_local_data(mixture, own_files(recipe, mixture)) for stage, mixture in found.items()}


def own_files(recipe: Recipe, mixture: Mixture) -> dict[str, str]:
    """The user's own files of the sources, or parts of sources, that this mixture has."""
    known = mixture.local_names()
    return {name: path for name, path in recipe.data.sources.items() if name in known}

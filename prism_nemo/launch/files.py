"""The user's own files that a recipe names: jobs must find them where they start, and in their container."""

from pathlib import Path

from prism_nemo.errors import InputError
from prism_nemo.launch.profile import Profile
from prism_nemo.recipe import Recipe


def named_files(recipe: Recipe) -> dict[str, Path]:
    """Recipe key -> file or folder of this machine that it names; hub ids and names of mixtures are left out."""
    values = {"model.base": recipe.model.base, "data.tokenizer": recipe.data.tokenizer, "rl.prompts": recipe.rl.prompts}
    values |= {f"data.sources.{name}": path for name, path in recipe.data.sources.items()}
    values |= {f"data.benchmarks.{name}": path for name, path in recipe.data.benchmarks.items()}
    mixtures = {"data.mixture": recipe.data.mixture}
    if recipe.long_context is not None:
        mixtures["long_context.mixture"] = recipe.long_context.mixture
    values |= {key: path for key, path in mixtures.items() if Path(path).suffix}
    return {key: Path(path) for key, path in values.items() if path and Path(path).exists()}


def from_the_root(recipe: Recipe) -> list[str]:
    """Overrides that name them from the root: a job starts in its copy of the code, not here."""
    return [f"{key}={path.absolute()}" for key, path in named_files(recipe).items() if not path.is_absolute()]


def check_mounted(recipe: Recipe, profile: Profile, run: Path) -> None:
    """Raise InputError for a file that the profile's container would not see: training would be over by then."""
    if not profile.container_image:
        return
    pairs = [mount.split(":")[:2] for mount in profile.mounts]
    seen = [run, *(Path(pair[0]) for pair in pairs if pair[0] == pair[-1])]
    for key, path in named_files(recipe).items():
        if not any(path.absolute().is_relative_to(folder) for folder in seen):
            raise InputError(
                f"{key}={path.absolute()} is in no mount of profile {profile.name}, so its container would not see it;"
                f' add "{path.absolute().parent}:{path.absolute().parent}" to mounts'
            )

"""Recipes from files: a plain Python file with a function `recipe() -> Recipe`."""

import importlib.util
from pathlib import Path

from prism_nemo.errors import InputError
from prism_nemo.recipe.recipe import Recipe

SHIPPED = Path(__file__).parents[2] / "recipes"


def shipped() -> list[str]:
    """Names of the recipes in `recipes/`."""
    return sorted(path.stem for path in SHIPPED.glob("*.py"))


def load_recipe(name_or_path: str) -> Recipe:
    """The recipe of a Python file, or a shipped one by name. Raises InputError when there is none or it is broken."""
    path = Path(name_or_path)
    if not path.suffix and not path.is_file():
        path = SHIPPED / f"{name_or_path}.py"
    if not path.is_file():
        raise InputError(f"no recipe '{name_or_path}': neither a file nor one of {', '.join(shipped())}")
    spec = importlib.util.spec_from_file_location(f"prism_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = module.recipe()
    except AttributeError as error:
        if "recipe" in str(error) and not hasattr(module, "recipe"):
            raise InputError(f"{path} has no function recipe() that returns a Recipe") from None
        raise InputError(f"{path} fails: {error}") from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(made, Recipe):
        raise InputError(f"{path}: recipe() returns a {type(made).__name__}, not a Recipe")
    return made

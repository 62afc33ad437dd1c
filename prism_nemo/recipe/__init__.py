"""Recipes: derive, override, freeze, show."""

from prism_nemo.recipe.derive import midtraining
from prism_nemo.recipe.laptop import laptop
from prism_nemo.recipe.load import load_recipe, shipped
from prism_nemo.recipe.override import override, override_part
from prism_nemo.recipe.parts import RL, Analyze, Data, Evaluate, LongContext, Merge, Model, Parallel, Training
from prism_nemo.recipe.recipe import Recipe

__all__ = [
    "RL",
    "Analyze",
    "Data",
    "Evaluate",
    "LongContext",
    "Merge",
    "Model",
    "Parallel",
    "Recipe",
    "Training",
    "laptop",
    "load_recipe",
    "midtraining",
    "override",
    "override_part",
    "shipped",
]

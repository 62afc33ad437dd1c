"""`prism plan`: tokens, parameters, memory, FLOPs, hours, disk and warnings of a recipe. Imports no torch."""

from prism_nemo.recipe.plan.plan import Plan, plan
from prism_nemo.recipe.plan.text import lines, to_dict
from prism_nemo.recipe.plan.training import TrainingPlan

__all__ = ["Plan", "TrainingPlan", "lines", "plan", "to_dict"]

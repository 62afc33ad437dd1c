"""What the chain hands to its stages."""

from pathlib import Path

import pytest

from prism_nemo.errors import InputError
from prism_nemo.recipe import load_recipe, override
from prism_nemo.stages.chain import chain


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("llama_3_1_8b", "llama_3_1_8b"),
        ("mistral_7b", None),  # not in the paper's analyses
        ("tiny_dense", None),  # a pico model has nothing to stand beside
    ],
)
def test_the_analyses_stand_beside_the_papers_model(name: str, paper: str | None, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    stages = {stage.name: stage for stage in chain(recipe.with_(rl={"engine": "trl", "prompts": "p"}), tmp_path)}
    for analysis in ("weights", "cka", "behaviour", "trajectory"):
        assert stages[f"analysis_{analysis}"].parameters["paper"] == paper, analysis
    assert set(stages["analysis_cka"].parameters) == {"count", "max_tokens", "paper"}


def test_reinforcement_learning_here_needs_prompts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rl\.prompts names no file"):
        chain(override(load_recipe("llama_3_1_8b"), ["rl.engine=trl"]), tmp_path)

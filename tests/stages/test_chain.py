"""What the chain hands to its stages."""

from pathlib import Path

import pytest

from prism_nemo.errors import InputError
from prism_nemo.recipe import load_recipe, override
from prism_nemo.stages.chain import chain
from prism_nemo.stages.rehearsal import download_stage


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


def test_a_second_training_on_attention_changes_no_number_of_the_first(tmp_path: Path) -> None:
    def long_context(choice: str) -> dict:
        recipe = override(load_recipe("tiny_dense"), [f"long_context.compare_attention={choice}"])
        return dict(next(stage for stage in chain(recipe, tmp_path) if stage.name == "long_context").parameters)

    assert long_context("true") == long_context("false")


def test_a_base_that_cannot_be_had_leaves_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client returns an existing folder, even an empty one, when it has no network."""
    import huggingface_hub

    def offline(model: str, *, local_dir: Path | None = None, **others: object) -> str:
        if local_dir is not None and Path(local_dir).is_dir():
            return str(local_dir)
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    stage = download_stage(load_recipe("llama_3_1_8b"))
    with pytest.raises(InputError, match="cannot be had from the hub"):
        stage.run(tmp_path / "base", lambda done, total, text="": None)
    assert list(tmp_path.iterdir()) == []

    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_text("{}")
    stage = download_stage(override(load_recipe("llama_3_1_8b"), [f"model.base={half}"]))
    with pytest.raises(InputError, match="half"):
        stage.run(tmp_path / "base", lambda done, total, text="": None)
    assert not (tmp_path / "base").exists()

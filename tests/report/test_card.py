"""Model cards: what they say is what the run holds, and what it lacks is said."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from prism_nemo.artifacts import verify
from prism_nemo.errors import InputError
from prism_nemo.report import make_report
from prism_nemo.report.card import model_card
from prism_nemo.report.run import Run, read_run


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    return read_run(run_folder)


def test_has_data_recipe_scores_lineage_and_limits(run: Run) -> None:
    card = model_card(run, "rl")
    for part in ("## Data", "## Scores", "## Recipe", "## Lineage", "## Limits"):
        assert part in card
    assert run.fingerprints["rl"] in card
    assert all(entry.fingerprint in card for entry in run.manifests["rl"].inputs)
    assert "| MT + RL |" in card
    assert "A rehearsal at pico size" in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0]) == run.recipe


def test_head_is_yaml_that_the_hub_reads(run: Run) -> None:
    assert yaml.safe_load(model_card(run, "mt").split("---\n")[1])["library_name"] == "transformers"
    assert "base_model" not in yaml.safe_load(model_card(run, "mt").split("---\n")[1])
    real = dataclasses.replace(run, recipe={**run.recipe, "model": {"family": "x", "base": "org/base", "pico": None}})
    assert yaml.safe_load(model_card(real, "mt").split("---\n")[1])["base_model"] == "org/base"


def test_what_was_not_measured_is_said(run: Run) -> None:
    card = model_card(dataclasses.replace(run, scores=None, blends={}), "mt")
    assert "Not measured." in card
    assert "No benchmark was run on this checkpoint." in card
    assert "Not recorded: the run has no report of its blend." in card


def test_the_report_holds_one_per_trained_checkpoint(report: Path) -> None:
    assert sorted(path.name for path in (report / "cards").iterdir()) == [
        f"{name}.md" for name in ("long_context_attention_hf", "long_context_hf", "merge", "mt", "rl", "rl_base")
    ]


def test_each_checkpoint_gets_its_card_and_stays_what_it_was(report: Path, run_folder: Path) -> None:
    for stage in ("mt", "rl", "long_context_hf"):
        assert (run_folder / stage / "README.md").read_text() == (report / "cards" / f"{stage}.md").read_text()
        assert verify(run_folder / stage) == []


def test_a_card_that_somebody_wrote_is_left_alone(maker: Callable[..., Path], tmp_path: Path) -> None:
    analyses = ("weights", "cka", "behaviour", "trajectory", "landscape", "long_context")
    folder = maker(tmp_path / "run", steps=4, without=tuple(f"analysis_{name}" for name in analyses))
    (folder / "mt" / "README.md").write_text("My own words.")
    make_report([folder], tmp_path / "report")
    assert (folder / "mt" / "README.md").read_text() == "My own words."


def test_an_unfinished_stage_gets_none(run: Run) -> None:
    with pytest.raises(InputError, match="is not finished"):
        model_card(run, "long_context_other")


def test_a_restored_checkpoint_has_its_steps_and_its_table_by_length(run: Run) -> None:
    points = run.analyses["long_context"]["points"]
    longest = run.recipe["long_context"]["seq_length"]
    for stage, said in {
        "merge": "2. linear merge: 0.85 of it and 0.15 of the base\n\n",
        "long_context_hf": f"sequences of {longest:,}, peak learning rate 0.003, all parameters",
        "long_context_attention_hf": "attention only",
    }.items():
        card = model_card(run, stage)
        assert said in card
        last = points[stage.removesuffix("_hf")]["positions"][-1]["loss"]
        assert f"{last['value']:.3f} [{last['low']:.3f}, {last['high']:.3f}]" in card
        assert "No benchmark was run on this checkpoint." in card
    assert "### Loss by tokens" not in model_card(run, "rl")
    without = dataclasses.replace(run, analyses={**run.analyses, "long_context": {"points": {}}})
    assert "### Loss by tokens" not in model_card(without, "merge")

"""Job scripts: golden texts of all shipped profiles, and what is refused instead of being rendered wrongly."""

import sys
from pathlib import Path

import pytest

from prism_nemo.errors import InputError
from prism_nemo.launch.profile import PROFILES, load_profile
from prism_nemo.launch.queue import TELLING
from prism_nemo.launch.script import Job, render
from prism_nemo.recipe import Parallel, load_recipe, override

GOLDEN = Path(__file__).parent / "golden"
RUN = Path("/shared/runs/llama_3_1_8b")
CODE = RUN / ".slurm" / "code-0123456789abcdef"
STAGES = {"blend": 1, "midtrain": 128}
CASES = [(path.stem, stage) for path in sorted(PROFILES.glob("*.toml")) for stage in STAGES]


def rendered(profile: str, stage: str) -> str:
    recipe = load_recipe("llama_3_1_8b")
    job = Job(
        stage=stage, ranks=STAGES[stage], arguments=("llama_3_1_8b", "midtrain.tokens=10.5B"), gpu=stage == "midtrain"
    )
    after = None if stage == "blend" else "1234"
    text = render(job, load_profile(profile), recipe.parallel, run=RUN, code=CODE, recipe=recipe.name, after=after)
    return text.replace(sys.executable, "/venv/bin/python")


@pytest.mark.parametrize(("profile", "stage"), CASES)
def test_golden_script(profile: str, stage: str) -> None:
    assert rendered(profile, stage) == (GOLDEN / f"{profile}-{stage}.sbatch").read_text()


@pytest.mark.parametrize(("profile", "stage"), CASES)
def test_a_script_in_a_log_does_not_look_like_a_failure(profile: str, stage: str) -> None:
    lines = (GOLDEN / f"{profile}-{stage}.sbatch").read_text().splitlines()
    assert [line for line in lines if TELLING.search(line)] == []


def test_ranks_must_be_nodes_times_devices() -> None:
    job = Job(stage="midtrain", ranks=6, arguments=("x",))
    with pytest.raises(InputError, match="6 ranks of stage midtrain are not 4 nodes x 2"):
        render(job, load_profile("local"), Parallel(nodes=4, devices_per_node=None), run=RUN, code=CODE, recipe="x")


@pytest.mark.parametrize(("run", "recipe"), [("/a b", "x"), ("/a,b", "x"), ("/a:b", "x"), ("/%u", "x"), ("/a", "x y")])
def test_what_would_be_split_or_expanded_is_refused(run: str, recipe: str) -> None:
    job = Job(stage="midtrain", ranks=1, arguments=("x",))
    with pytest.raises(InputError, match="cannot be passed to a job"):
        render(job, load_profile("local"), Parallel(nodes=1), run=Path(run), code=CODE, recipe=recipe)


def test_arguments_are_quoted() -> None:
    job = Job(stage="report", ranks=1, arguments=("x", "data.sources.math=a b;rm"))
    text = render(job, load_profile("local"), Parallel(nodes=1), run=RUN, code=CODE, recipe="x")
    assert "'data.sources.math=a b;rm'" in text


def test_laptop_recipe_spreads_over_nodes() -> None:
    recipe = override(load_recipe("tiny_dense"), ["parallel.nodes=2", "parallel.devices_per_node=1"])
    job = Job(stage="midtrain", ranks=recipe.parallel.world, arguments=("tiny_dense",))
    text = render(job, load_profile("local"), recipe.parallel, run=RUN, code=CODE, recipe="tiny_dense")
    assert "#SBATCH --nodes=2\n" in text
    assert "#SBATCH --ntasks-per-node=1\n" in text
    assert "gpus" not in text

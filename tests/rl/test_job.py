"""Jobs: round trip, presets, refusals; the order of prompts."""

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.errors import InputError
from prism_nemo.recipe import RL, load_recipe, override
from prism_nemo.recipe.parts import Rewards
from prism_nemo.recipe.presets import PRESETS
from prism_nemo.rl.job import RLJob, Stage, draw, load_job, preset
from prism_nemo.rl.rewards import RewardRules
from prism_nemo.rl.settings import job_from, job_values
from prism_nemo.verifiers import Problem

PLACES = {"model": "m", "prompts": "p.jsonl", "out": "o"}


def pool(**counts):
    return [
        Problem(
            id=f"{domain}{number}",
            domain=domain,
            prompt=f"{domain} {number}",
            answer="A" if domain == "science" else "1",
            source="s",
            licence="MIT",
        )
        for domain, count in counts.items()
        for number in range(count)
    ]


def test_defaults_are_the_papers():
    job = preset("paper", **PLACES)
    table21 = (job.prompts_per_step, job.samples_per_prompt, job.steps, job.max_tokens, job.learning_rate, job.kl)
    assert table21 == (64, 16, 1000, 16_384, 5e-7, 0.05)
    assert (job.temperature, job.top_p, job.importance_cap, job.loss, job.schedule) == (
        1.0,
        1.0,
        2.0,
        "token",
        "linear",
    )
    assert job.normalize_std and job.rewards.format_gate


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip(name, tmp_path):
    job = preset(name, **PLACES)
    assert RLJob.from_json(job.to_json()) == job
    staged = dataclasses.replace(job, stages=(Stage(steps=600, domains=("math",)), Stage(steps=400, domains=("code",))))
    (tmp_path / "job.json").write_text(staged.to_json())
    assert load_job(tmp_path / "job.json") == staged


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 3}, "did you mean steps"),
        ({"rewards": {"stop_penaltee": 1}}, "did you mean stop_penalty"),
        ({"samples_per_prompt": 1}, "a group needs 2"),
        ({"temperature": 0}, "above 0"),
        ({"max_new_tokens": 99_999}, "room for a prompt"),
        ({"stages": [{"steps": 1, "domains": ["math"]}]}, "add up to 1 steps"),
        ({"reference_every": 5, "kl": 0}, "no reference"),
        ({"rewards": {"overlong_buffer": 99_999}}, "below max_new_tokens"),
        ({"loss": "tokens"}, "token or sequence"),
        ({"steps": "many"}, "rl.steps is 'many'; it must be of type int"),
        ({"steps": 7.5}, "must be of type int"),
        ({"dynamic_sampling": 1}, "must be of type bool"),
        ({"rewards": {"stop_penalty": "x"}}, "rl.rewards.stop_penalty is 'x'"),
        ({"stages": ["math"]}, "of the form domain"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(InputError, match=message):
        RLJob.from_dict({**PLACES, **changes})


def test_command_line_values():
    job = job_from(
        ["steps=7", "rewards.stop_penalty=0.5", "schedule=constant", "domains=math", "stages=math:3,math:4"],
        model="m",
        prompts="p",
        out="o",
    )
    assert (job.steps, job.rewards.stop_penalty, job.schedule, job.domains) == (7, 0.5, "constant", ("math",))
    assert job.rewards.format_gate
    with pytest.raises(InputError, match="key=value"):
        job_from(["steps"], model="m", prompts="p", out="o")


def test_a_recipes_section_makes_a_job():
    section = RL(steps=9, clip_high=0.3, stages=("math:4", "math+code:5"), rewards=Rewards(stop_penalty=0.5))
    job = RLJob.from_dict({**job_values(section), **PLACES})
    assert (job.steps, job.clip_high, job.prompts, job.rewards.stop_penalty) == (9, 0.3, "p.jsonl", 0.5)
    assert job.stages == (Stage(steps=4, domains=("math",)), Stage(steps=5, domains=("math", "code")))
    assert job.drawn_domains == ("code", "math")


def test_a_recipe_and_a_job_have_the_same_fields_and_defaults():
    ours = {entry.name: entry for entry in dataclasses.fields(RL)}
    only_a_job = {"model", "out", "rollouts_per_pass", "verify_workers"}
    only_a_recipe = {"engine", "preset", "cluster"}
    assert {entry.name for entry in dataclasses.fields(RLJob)} - only_a_job == set(ours) - only_a_recipe
    assert RLJob.from_dict({**job_values(RL()), **PLACES}) == RLJob(**PLACES)
    assert dataclasses.asdict(Rewards()) == dataclasses.asdict(RewardRules())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_in_a_recipe_is_the_preset_of_a_job(name):
    recipe = override(load_recipe("llama_3_1_8b"), ["rl.kl=0.9", f"rl.preset={name}", "rl.seed=3"])
    assert RLJob.from_dict({**job_values(recipe.rl), **PLACES}) == preset(name, **PLACES, seed=3)
    assert recipe.rl.preset == name


def test_a_preset_leaves_a_laptops_sizes():
    recipe = override(load_recipe("tiny_dense"), ["rl.preset=dapo", "rl.rewards.overlong_buffer=8", "rl.stages=math:8"])
    before = load_recipe("tiny_dense").rl
    assert (recipe.rl.prompts_per_step, recipe.rl.max_new_tokens) == (before.prompts_per_step, before.max_new_tokens)
    assert (recipe.rl.clip_high, recipe.rl.rewards.overlong_buffer, recipe.rl.stages) == (0.28, 8, ("math:8",))
    assert override(recipe, ["rl.preset=paper"]).rl.clip_high == RL().clip_high
    with pytest.raises(InputError, match="must be one of paper, dapo, nemotron_nano"):
        override(recipe, ["rl.preset=dap"])


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 5), st.integers(0, 99))
def test_draw_passes_over_the_pool(per_step, steps, more, seed):
    problems = pool(math=per_step + more)
    job = RLJob.from_dict({**PLACES, "prompts_per_step": per_step, "steps": steps, "seed": seed, "domains": ["math"]})
    order = draw(problems, job)
    assert len(order) == steps * per_step
    assert order == draw(problems, job)
    for start in range(0, len(order), per_step):
        names = [problem.id for problem in order[start : start + per_step]]
        assert len(set(names)) == per_step, "a step never holds a prompt twice"
    if more == 0:  # whole passes: no prompt comes again before every other came
        for start in range(0, len(order), per_step):
            assert set(Counter(problem.id for problem in order[start : start + per_step]).values()) == {1}


def test_stages_draw_from_their_own_domains():
    stages = [{"steps": 3, "domains": ["math"]}, {"steps": 2, "domains": ["science"]}]
    job = RLJob.from_dict({**PLACES, "prompts_per_step": 2, "steps": 5, "stages": stages})
    domains = [problem.domain for problem in draw(pool(math=4, science=3), job)]
    assert domains == ["math"] * 6 + ["science"] * 4


def test_draw_refuses_an_absent_domain_and_a_small_pool():
    job = RLJob.from_dict({**PLACES, "prompts_per_step": 4, "steps": 2})
    with pytest.raises(InputError, match="no prompt of code, science"):
        draw(pool(math=9), job)
    with pytest.raises(InputError, match="a step takes 4"):
        draw(pool(math=1, code=0, science=1), dataclasses.replace(job, domains=("math", "science")))

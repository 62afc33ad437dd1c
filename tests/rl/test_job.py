"""A recipe's rl section: command lines, presets, refusals, curricula; the order of prompts."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.errors import InputError
from prism_nemo.recipe import RL, load_recipe, override
from prism_nemo.recipe.presets import PRESETS
from prism_nemo.recipe.reinforcement import Stretch, check_rl, curriculum, drawn_domains
from prism_nemo.rl.job import RLJob, draw
from prism_nemo.rl.settings import assignments, section_from, training
from prism_nemo.verifiers import Problem

PROMPTS = Path("p.jsonl")


def section(*values, preset="", recipe=""):
    return section_from(values, preset=preset, recipe=recipe, prompts=PROMPTS)


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
    rl = section()
    assert rl == section(preset="paper")
    table21 = (rl.prompts_per_step, rl.samples_per_prompt, rl.steps, rl.max_tokens, rl.learning_rate, rl.kl)
    assert table21 == (64, 16, 1000, 16_384, 5e-7, 0.05)
    assert (rl.temperature, rl.top_p, rl.importance_cap, rl.loss, rl.schedule) == (1.0, 1.0, 2.0, "token", "linear")
    assert rl.normalize_std and rl.rewards.format_gate
    assert rl.rollouts_per_step == 1024


@pytest.mark.parametrize("name", PRESETS)
def test_a_section_survives_its_command_line(name):
    rl = section("stages=math:600,math+code:400", "think_opened=true", "rewards.stop_penalty=0.5", preset=name)
    check_rl(rl)
    assert training(section(*assignments(rl))) == training(rl)
    assert assignments(RL()) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["step=3"], "unknown recipe key 'rl.step'; did you mean 'steps'"),
        (["rewards.stop_penaltee=1"], "did you mean 'stop_penalty'"),
        (["steps"], "key=value"),
        (["steps=many"], "rl.steps=many: a whole number"),
        (["steps=7.5"], "rl.steps=7.5: a whole number"),
        (["dynamic_sampling=1"], "true or false"),
        (["rewards.stop_penalty=x"], "rl.rewards.stop_penalty=x: a number"),
        (["loss=tokens"], "must be one of token, sequence"),
        (["engine=trl"], "engine is no setting of the training; give it as --engine"),
        (["cluster.nodes=4"], "give it as --cluster"),
    ],
)
def test_what_cannot_be_read(values, message):
    with pytest.raises(InputError, match=message):
        section(*values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["samples_per_prompt=1"], "a group needs 2"),
        (["steps=5", "warmup_steps=5"], "rl.warmup_steps=5 is not below rl.steps=5"),
        (["steps=0"], "rl.steps is 0; it must be at least 1"),
        (["temperature=0"], "above 0"),
        (["weight_decay=-1"], "must not be negative"),
        (["max_new_tokens=99999"], "room for a prompt"),
        (["stages=math:1"], "add up to 1 steps, rl.steps is 1000"),
        (["stages=math"], "of the form domain"),
        (["stages=maths:1000"], "name maths; the domains are"),
        (["domains=math,physics"], "name physics"),
        (["domains="], "rl.domains is empty"),
        (["reference_every=5", "kl=0"], "no reference"),
        (["rewards.overlong_buffer=99999"], "below rl.max_new_tokens"),
        (["rewards.stop_penalty=-1"], "given as a positive number"),
        (["rewards.repetition_ngram=0"], "at least 1"),
    ],
)
def test_what_cannot_be_run(values, message):
    with pytest.raises(InputError, match=message):
        RLJob(model="m", out="o", rl=section(*values))


def test_a_value_from_python_is_checked_too():
    with pytest.raises(InputError, match="token or sequence"):
        check_rl(RL(loss="tokens"))  # type: ignore[arg-type]


def test_a_recipes_section_is_where_a_job_starts():
    laptops = load_recipe("tiny_dense").rl
    rl = section("steps=7", recipe="tiny_dense")
    assert rl == dataclasses.replace(laptops, steps=7, prompts="p.jsonl")
    assert section(recipe="tiny_dense", preset="dapo").kl == 0.0


def test_a_curriculum():
    rl = RL(steps=9, stages=("math:4", "math+code:5"))
    assert curriculum(rl) == (Stretch(steps=4, domains=("math",)), Stretch(steps=5, domains=("math", "code")))
    assert drawn_domains(rl) == ("code", "math")
    assert curriculum(RL()) == (Stretch(steps=1000, domains=("math", "code", "science")),)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_in_a_recipe_is_the_preset_of_a_job(name):
    recipe = override(load_recipe("llama_3_1_8b"), ["rl.kl=0.9", f"rl.preset={name}", "rl.seed=3"])
    assert training(recipe.rl) == training(section("seed=3", preset=name))
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
    rl = RL(prompts_per_step=per_step, steps=steps, seed=seed, domains=("math",))
    order = draw(problems, rl)
    assert len(order) == steps * per_step
    assert order == draw(problems, rl)
    for start in range(0, len(order), per_step):
        names = [problem.id for problem in order[start : start + per_step]]
        assert len(set(names)) == per_step, "a step never holds a prompt twice"
    whole = (per_step + more) // per_step * per_step
    for start in range(0, len(order) - whole + 1, whole):  # nor does a pass
        assert len({problem.id for problem in order[start : start + whole]}) == whole


def test_stretches_draw_from_their_own_domains():
    rl = RL(prompts_per_step=2, steps=5, stages=("math:3", "science:2"))
    domains = [problem.domain for problem in draw(pool(math=4, science=3), rl)]
    assert domains == ["math"] * 6 + ["science"] * 4


def test_draw_refuses_an_absent_domain_and_a_small_pool():
    rl = RL(prompts_per_step=4, steps=2)
    with pytest.raises(InputError, match="no prompt of code, science"):
        draw(pool(math=9), rl)
    with pytest.raises(InputError, match="a step takes 4"):
        draw(pool(math=1, code=0, science=1), dataclasses.replace(rl, domains=("math", "science")))

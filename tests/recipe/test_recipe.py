"""Recipes: typed overrides, unknown keys, derivation, the rehearsal, and what is refused before a start."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.errors import InputError
from prism_nemo.recipe import laptop, load_recipe, override, shipped
from prism_nemo.recipe.check import check, model_shape
from prism_nemo.recipe.override import count

SEVEN = [name for name in shipped() if not name.startswith("tiny_")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10.5B", 10_500_000_000),
        ("25k", 25_000),
        ("131_072", 131_072),
        ("1e9", 10**9),
        ("0", 0),
        ("-3", -3),
        ("2M", 2_000_000),
    ],
)
def test_counts_may_carry_a_suffix(text: str, value: int) -> None:
    assert count(text) == value


@given(st.integers(-(10**15), 10**15))
def test_every_whole_number_is_read_exactly(number: int) -> None:
    assert count(str(number)) == number
    assert count(f"{number:_}") == number


@pytest.mark.parametrize("text", ["", "1.5", "ten", "1.23456k5", "--1", "0.0001k"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^" + text.replace("-", r"\-").replace(".", r"\.") + "$"):
        count(text)


def test_overrides_take_the_type_of_their_field() -> None:
    recipe = override(
        load_recipe("llama_3_1_8b"),
        ["midtrain.learning_rate=3e-5", "parallel.tensor=4", "data.sources.math=p.jsonl", "rl.domains=math,code",
         "long_context=none", "precision=fp8_current", "parallel.sequence=false", "parallel.devices_per_node=none"],
    )  # fmt: skip
    assert recipe.midtrain.learning_rate == 3e-5
    assert recipe.parallel.tensor == 4
    assert recipe.data.sources == {"math": "p.jsonl"}
    assert recipe.rl.domains == ("math", "code")
    assert recipe.long_context is None
    assert recipe.precision == "fp8_current"
    assert recipe.parallel.sequence is False
    assert recipe.parallel.devices_per_node is None


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("midtrain.learning_rat=1", "did you mean 'learning_rate'"),
        ("midtrian.tokens=1", "did you mean 'midtrain'"),
        ("midtrain.tokens=many", "midtrain.tokens=many: a whole number is wanted"),
        ("midtrain.schedule=cosin", "must be one of cosine"),
        ("midtrain=3", "is a part, not a value"),
        ("midtrain.tokens.x=3", "goes too deep"),
        ("model.pico.hidden.x=3", "goes too deep"),
        ("tokens", "key=value"),
        ("parallel.sequence=1", "true or false"),
    ],
)
def test_a_wrong_override_names_key_and_cure(assignment: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        override(load_recipe("llama_3_1_8b"), [assignment])


def test_the_seven_and_their_rehearsals_are_shipped() -> None:
    assert len(SEVEN) == 7
    assert {"tiny_dense", "tiny_hybrid"} < set(shipped())


@pytest.mark.parametrize("name", SEVEN)
def test_shipped_recipes_carry_the_papers_numbers(name: str) -> None:
    recipe = load_recipe(name)
    check(recipe)
    train = recipe.midtrain
    assert train.tokens // (train.seq_length * train.global_batch) == 25_000
    assert (train.seq_length, train.global_batch, train.learning_rate) == (8192, 128, 5e-5)
    assert (train.warmup_steps, train.beta1, train.beta2, train.eps, train.weight_decay) == (500, 0.9, 0.95, 1e-10, 0.1)
    assert yaml.safe_load(recipe.to_yaml()) == recipe.to_dict()


@pytest.mark.parametrize("name", SEVEN)
def test_the_rehearsal_keeps_what_makes_the_recipe(name: str) -> None:
    full = load_recipe(name)
    small = laptop(full)
    check(small)
    assert small.model.family == full.model.family
    assert small.data.mixture == full.data.mixture
    assert small.midtrain.schedule == full.midtrain.schedule
    assert small.midtrain.weight_decay == full.midtrain.weight_decay
    assert set(model_shape(small).pattern) == set(model_shape(full).pattern)
    assert small.midtrain.tokens < full.midtrain.tokens / 1000


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["rl.stages=math:600,code+science:400"], {"stages": ("math:10", "code+science:6")}),
        (["rl.stages=math:10,code:990"], {"stages": ("code:16",)}),
        (["rl.warmup_steps=100"], {"warmup_steps": 1}),
        (["rl.preset=dapo"], {"dynamic_sampling": False, "warmup_steps": 1, "kl": 0.0, "schedule": "constant"}),
    ],
)
def test_the_rehearsal_of_any_reinforcement_can_be_run(changes: list[str], expected: dict) -> None:
    small = laptop(override(load_recipe("llama_3_1_8b"), changes))
    check(small)
    assert {name: getattr(small.rl, name) for name in expected} == expected


def test_the_overlong_buffer_keeps_its_proportion() -> None:
    full = override(load_recipe("llama_3_1_8b"), ["rl.preset=dapo"])
    assert (full.rl.rewards.overlong_buffer, full.rl.max_new_tokens) == (2048, 16_384)
    set_here = override(load_recipe("tiny_dense"), ["rl.preset=dapo"])
    check(set_here)
    for small in (laptop(full), set_here):
        assert (small.rl.rewards.overlong_buffer, small.rl.max_new_tokens) == (5, 40)
        assert small.rl.rewards.overlong_penalty == 1.0
        assert small.rl.dynamic_sampling is False
    assert laptop(load_recipe("llama_3_1_8b")).rl.rewards.overlong_buffer == 0


@pytest.mark.parametrize(
    "changes",
    [
        ["midtrain.document_attention=true"],
        ["long_context.document_attention=true", "long_context.context=1", "long_context.global_batch=64"],
        ["long_context.overlap=4096"],
        ["midtrain.keep_last=1", "midtrain.schedule=exponential", "midtrain.final_learning_rate=0"],
    ],
)
def test_the_rehearsal_of_any_training_can_be_run(changes: list[str]) -> None:
    full = override(load_recipe("llama_3_1_8b"), changes)
    check(full)
    small = laptop(full)
    check(small)
    assert small.midtrain.document_attention == full.midtrain.document_attention
    assert small.long_context.overlap == full.long_context.overlap // 256


@pytest.mark.parametrize(
    ("overrides", "midtrain", "pretrain"),
    [
        ([], (2, 2), (1, 1)),
        (["parallel.processes=1"], (1, 1), (1, 1)),
        (["parallel.processes=3"], (2, 2), (1, 1)),
        (["parallel.processes=5", "midtrain.micro_batch=1", "midtrain.global_batch=10"], (5, 5), (1, 1)),
        (["parallel.tensor=2"], (2, 1), (2, 1)),
        (["parallel.tensor=2", "parallel.processes=4"], (4, 2), (2, 1)),
        (["parallel.tensor=2", "parallel.processes=3"], (2, 1), (2, 1)),
    ],
)
def test_processes_without_gpus_are_as_many_as_the_batch_has_work_for(overrides, midtrain, pretrain) -> None:
    recipe = override(load_recipe("tiny_dense"), overrides)
    check(recipe)
    layouts = [recipe.parallel.of(training) for training in (recipe.midtrain, recipe.pretrain)]
    assert [(layout.world, layout.data) for layout in layouts] == [midtrain, pretrain]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["parallel.tensor=3"], "parallel.tensor=3 does not divide"),
        (["parallel.processes=0"], "parallel.processes=0 must be at least 1"),
        (["midtrain.tokens=100"], "less than one step"),
        (["midtrain.global_batch=7", "midtrain.micro_batch=2"], "midtrain.global_batch=7"),
        (["midtrain.warmup_steps=999999"], "warmup_steps"),
        (["rl.max_new_tokens=256"], "rl.max_new_tokens"),
        (["midtrain.document_attention=true"], "set midtrain.micro_batch=1 and midtrain.context=1"),
        (["midtrain.document_attention=true", "parallel.pipeline=3", "midtrain.micro_batch=1"], "at most 2 pipeline"),
        (["long_context.trainable=("], "long_context.trainable: '\\(' is no regular expression"),
        (["long_context.trainable=atention"], r"'atention' is found in no parameter, such as \S+; use all, attention"),
        (
            ["long_context.seq_length=1022", "parallel.context=2"],
            r"1022 is not .* 2 x parallel.context = 4; use 1020 or 1024",
        ),
        (["long_context.overlap=511"], "long_context.overlap=511 must lie between 0 and seq_length - 2 = 510"),
        (["long_context.rope_base=0"], "long_context.rope_base=0.* must be above 1"),
        (["long_context.rope_scaling=yarn", "long_context.rope_factor=1"], "long_context.rope_factor=1.* above 1"),
        (["midtrain.global_batch=0"], "midtrain.global_batch=0 must be at least 1"),
        (["midtrain.micro_batch=0"], "midtrain.micro_batch=0 must be at least 1"),
        (["midtrain.seq_length=0"], "midtrain.seq_length=0 must be at least 1"),
        (["pretrain.warmup_steps=-1"], "pretrain.warmup_steps=-1 must not be negative"),
        (["long_context.keep_last=0"], "long_context.keep_last=0 must be at least 1"),
        (["long_context.log_every=0"], "long_context.log_every=0 must be at least 1"),
        (["long_context.keep_every_tokens=-1"], "long_context.keep_every_tokens=-1 must not be negative"),
        (["long_context.final_learning_rate=2"], "long_context.final_learning_rate=2.0 must lie between 0 and 1"),
        (["rl.dynamic_sampling=true"], "rl.dynamic_sampling: TRL has none"),
    ],
)
def test_impossible_recipes_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check(override(load_recipe("tiny_dense"), overrides))


def test_a_model_without_rotary_positions_refuses_others_before_it_is_trained() -> None:
    with pytest.raises(InputError, match=r"long_context\.rope_base, rope_scaling: this model has no rotary positions"):
        check(override(load_recipe("nemotron_h_8b"), ["long_context.rope_base=1e6"]))


def test_a_trainings_own_context_parallel_is_named() -> None:
    changes = ["long_context.seq_length=131074", "long_context.tokens=2B"]
    with pytest.raises(InputError, match=r"not divided by 2 x long_context\.context = 16; use 131072 or 131088"):
        check(override(load_recipe("llama_3_1_8b"), changes))


def test_ranks_are_divided_by_every_trainings_own_layout() -> None:
    changes = ["parallel.nodes=5", "midtrain.global_batch=160"]
    with pytest.raises(InputError, match=r"long_context: 40 ranks .* context = 16"):
        check(override(load_recipe("granite_4_0_micro"), changes))
    with pytest.raises(InputError, match=r"parallel\.nodes=0 must be at least 1"):
        check(override(load_recipe("granite_4_0_micro"), ["parallel.nodes=0"]))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_tokenizer_of_ones_own_is_a_folder(tmp_path: Path, name: str) -> None:
    recipe = override(load_recipe("llama_3_1_8b"), [f"data.tokenizer={tmp_path}"])
    for wrong in (recipe, override(recipe, ["data.tokenizer=meta-llama/Llama-3.1-8B"])):
        with pytest.raises(InputError, match=r"is no folder with a tokenizer\.json or tokenizer\.model"):
            check(wrong)
    (tmp_path / name).touch()
    check(recipe)


def test_broken_recipe_files_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe 'nothing'"):
        load_recipe("nothing")
    for text, words in (
        ("x = 1", "no function recipe"),
        ("def recipe(): return 3", "returns a int"),
        ("1/0", "ZeroDivision"),
    ):
        path = tmp_path / "r.py"
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            load_recipe(str(path))


def test_no_shipped_recipe_names_a_path_of_a_machine() -> None:
    for name in shipped():
        recipe = load_recipe(name)
        assert not [value for value in _strings(recipe.to_dict()) if value.startswith(("/", "~"))]


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for entry in value.values() for text in _strings(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in _strings(entry)]
    return [value] if isinstance(value, str) else []

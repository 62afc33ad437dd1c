"""What a recipe says about its data reaches the preparation."""

import dataclasses
import json
from pathlib import Path

import pytest

from prism_nemo.data.blend import read_report
from prism_nemo.data.tokenizer import train_tokenizer
from prism_nemo.errors import InputError
from prism_nemo.recipe import Recipe, load_recipe, override
from prism_nemo.stages.data import blend_stage, long_context_mixture_of, mixture_of
from prism_nemo.stages.stage import Stage

QUESTION = "how many of the seven white swans on the far side of the lake can swim at night"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """One source, with a document that holds the only question of a benchmark; the list's own path leads nowhere."""
    texts = [f"document {number} about swans and lakes, with its own words {number * 7}" for number in range(300)]
    rows = [*texts, f"they ask {QUESTION.upper()} and more"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": QUESTION}))
    (tmp_path / "list.yaml").write_text("benchmarks: [{name: quiz, path: nowhere.jsonl, render: {column: question}}]")
    (tmp_path / "m.yaml").write_text("decontamination: list.yaml\nsources: [{name: a, weight: 1, path: a.jsonl}]")
    train_tokenizer(texts, 300, tmp_path / "tokenizer")
    chosen = load_recipe("mistral_7b")
    data = dataclasses.replace(chosen.data, mixture=str(tmp_path / "m.yaml"), workers=1, validation_tokens=100)
    training = dataclasses.replace(chosen.midtrain, tokens=5000, seq_length=32)
    return dataclasses.replace(chosen, data=data, midtrain=training)


def stage(recipe: Recipe, tmp_path: Path, **changes) -> Stage:
    changed = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, **changes))
    inputs = {"tokenizer": tmp_path / "tokenizer"}
    mixture = lambda: mixture_of(changed, tmp_path)  # noqa: E731
    return blend_stage("blend", "", changed, changed.midtrain, mixture=mixture, inputs=inputs)


def contaminated(made: Stage, out: Path) -> int:
    made.run(out, lambda *_: None)
    return read_report(out)["sources"][0]["contaminated"]["documents"]


def test_a_local_copy_takes_a_benchmarks_place(recipe, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.jsonl does not exist"):
        contaminated(stage(recipe, tmp_path), tmp_path / "blend")
    local = stage(recipe, tmp_path, benchmarks={"quiz": str(tmp_path / "quiz.jsonl")})
    assert local.inputs["benchmark quiz"] == tmp_path / "quiz.jsonl"
    assert contaminated(local, tmp_path / "blend") == 1


def test_checking_against_benchmarks_can_be_switched_off(recipe, tmp_path):
    unchecked = stage(recipe, tmp_path, decontaminate=False)
    assert unchecked.parameters["screen"] is None
    assert contaminated(unchecked, tmp_path / "blend") == 0


def test_a_benchmark_that_is_on_no_list_is_refused_before_any_work(recipe, tmp_path):
    with pytest.raises(InputError, match=r"has no benchmark 'quitz' \(did you mean 'quiz'\?\)"):
        stage(recipe, tmp_path, benchmarks={"quitz": "x"})
    with pytest.raises(InputError, match=r"benchmark quiz: .*x does not exist"):
        stage(recipe, tmp_path, benchmarks={"quiz": "x"})
    with pytest.raises(InputError, match=r"data\.benchmarks: documents of m are not checked"):
        stage(recipe, tmp_path, benchmarks={"quiz": "x"}, decontaminate=False)


def test_own_files_go_to_the_mixtures_that_have_the_source():
    """A source of the long-context mixture alone has to be given, and is none of mid-training's."""
    recipe = override(
        load_recipe("llama_3_1_8b"), ["data.sources.xenarcai_codex=/codex", "data.sources.chat.ultrachat=/chat"]
    )
    assert recipe.data.sources == {"xenarcai_codex": "/codex", "chat.ultrachat": "/chat"}
    midtrain, long = (
        {part.path for source in mixture.sources for part in source.parts if part.path}
        for mixture in (mixture_of(recipe, Path()), long_context_mixture_of(recipe, recipe.long_context, Path()))
    )
    assert (midtrain, long) == ({"/chat"}, {"/codex"})
    wrong = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, sources={"xenarcai": "/codex"}))
    with pytest.raises(InputError, match=r"data\.sources\.xenarcai: .* has no source .*did you mean 'xenarcai_codex'"):
        mixture_of(wrong, Path())


def test_a_part_of_a_source_is_an_input(recipe, tmp_path):
    rows = "render: {kind: text}"
    parts = f"[{{name: x, path: a.jsonl, {rows}}}, {{name: y, path: a.jsonl, {rows}}}]"
    (tmp_path / "m.yaml").write_text(f"sources: [{{name: a, weight: 1, parts: {parts}}}]")
    made = stage(recipe, tmp_path, sources={"a.y": str(tmp_path / "quiz.jsonl")}, decontaminate=False)
    assert made.inputs["source a.y"] == tmp_path / "quiz.jsonl"


def test_what_a_mixture_reads_by_itself_is_an_input_too(recipe, tmp_path):
    """Otherwise an edited file would go unseen and the blend pass for up to date."""
    (tmp_path / "list.yaml").write_text("benchmarks: [{name: quiz, path: quiz.jsonl, render: {column: question}}]")
    made = stage(recipe, tmp_path)
    outside = {role: path for role, path in made.inputs.items() if role != "tokenizer"}
    assert outside == {"source a": tmp_path / "a.jsonl", "benchmark quiz": tmp_path / "quiz.jsonl"}
    mixture = (tmp_path / "m.yaml").read_text()
    (tmp_path / "m.yaml").write_text(mixture.replace("a.jsonl", "'?.jsonl'"))
    assert stage(recipe, tmp_path).inputs["source a a.jsonl"] == tmp_path / "a.jsonl"
    (tmp_path / "list.yaml").write_text((tmp_path / "list.yaml").read_text() + "\nngram: 11")
    assert stage(recipe, tmp_path).parameters["screen"]["ngram"] == 11 != made.parameters["screen"]["ngram"]

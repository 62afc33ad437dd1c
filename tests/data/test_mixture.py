"""Mixture files: what is refused, and how local data takes the hub's place."""

import pytest

from prism_nemo.data.mixture import load_mixture
from prism_nemo.errors import InputError
from tests.data.conftest import write_jsonl

GOOD = "sources: [{name: a, weight: 60, path: a.jsonl}, {name: b, weight: 40, path: b.jsonl}]"
WITH = "sources: [{name: a, weight: 1, path: x, %s}]"


@pytest.fixture
def load(tmp_path):
    def read(content: str, **options):
        (tmp_path / "m.yaml").write_text(content)
        return load_mixture(tmp_path / "m.yaml", **options)

    return read


def test_weights_may_be_percent_or_shares(load):
    assert load(GOOD).weights() == pytest.approx({"a": 0.6, "b": 0.4})
    assert load(GOOD.replace("60", "0.6").replace("40", "0.4")).weights() == pytest.approx({"a": 0.6, "b": 0.4})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace("60", "50"), r"add up to 90; they must add up to 1 or to 100"),
        (GOOD.replace("name: b", "name: a"), r"two sources are called 'a'"),
        (GOOD.replace("weight: 60", "wieght: 60"), r"unknown key 'wieght' \(did you mean 'weight'\?\)"),
        (GOOD.replace("weight: 60, ", ""), r"sources\[0\]: no `weight`"),
        (GOOD.replace("path: a", "pth: a"), r"sources\[0\].*unknown key 'pth' \(did you mean 'path'\?\)"),
        (GOOD + "\nmin_token: 4", r"unknown key 'min_token' \(did you mean 'min_tokens'\?\)"),
        (GOOD.replace("60", "sixty"), r"weight: expected float, got 'sixty'"),
        (GOOD.replace("60", "-60").replace("40", "160"), r"weight -60.0 must be above 0"),
        (GOOD.replace("name: a", "name: a b"), r"'a b' may only have letters"),
        ("sources: []", r"at least one source"),
        ("sources: [{source: dclm_ed, weight: 1}]", r"no source 'dclm_ed' \(did you mean 'dclm_edu'\?\)"),
        ("sources: [{name: a, weight: 1, path: x, render: {kind: chta}}]", r"'chta' \(did you mean 'chat'\?\)"),
        ("sources: [{name: a, weight: 1, path: x, where: [{column: c}]}]", r"needs exactly one of equals"),
        ("sources: [{name: a, weight: 1, parts: [{path: x}, {path: y}]}]", r"each of the 2 parts needs its own name"),
        ("sources: [", r"is not valid YAML"),
        (WITH % "where: [{column: c, matches: '('}]", r"sources\[0\]: '\(' is no regular expression \(missing \)"),
        (WITH % "render: {kind: template, template: '{q'}", r"sources\[0\]: template '\{q': expected '\}'"),
        (WITH % "render: {kind: template, template: '{q} {}'}", r"may only hold text and columns"),
        (WITH % "render: {kind: template, template: '{q!r}'}", r"may only hold text and columns"),
        (WITH % "render: {kind: template, template: 'nothing'}", r"may only hold text and columns"),
        (WITH % "render: {kind: template}", r"belong together"),
        (WITH % "render: {template: '{q}'}", r"belong together"),
        (WITH % "hub: {id: a/b, split: 'train[:10%]'}", r"split 'train\[:10%\]' is a slice"),
    ],
)
def test_a_wrong_mixture_is_refused_with_the_place(load, content, message):
    with pytest.raises(InputError, match=message):
        load(content)


def test_an_unknown_mixture_or_override_names_the_nearest():
    with pytest.raises(InputError, match=r"did you mean 'math_code'\?"):
        load_mixture("math_cod")
    with pytest.raises(InputError, match=r"no source 'megamath' \(did you mean 'megamath_web_pro'\?\)"):
        load_mixture("math", {"megamath": "x"})


def test_paths_count_from_the_file_and_overrides_from_here(load, tmp_path):
    mixture = load(GOOD, overrides={"b": "elsewhere.parquet"})
    assert [part.path for source in mixture.sources for part in source.parts] == [
        str(tmp_path / "a.jsonl"),
        "elsewhere.parquet",
    ]


def test_parts_are_found_in_a_folder_and_by_name(tmp_path):
    for part in ("wildchat", "tulu_math", "tulu_code", "tulu_instruction_following", "ultrachat"):
        write_jsonl(tmp_path / "chat" / f"{part}.jsonl", [{}])
    mixture = load_mixture("math", {"chat": tmp_path / "chat", "chat.ultrachat": "u.jsonl"})
    chat = next(source for source in mixture.sources if source.name == "chat")
    assert [part.path for part in chat.parts][:1] == [str(tmp_path / "chat" / "wildchat.jsonl")]
    assert chat.parts[-1].path == "u.jsonl"
    assert chat.parts[-1].render.kind == "chat"
    (tmp_path / "chat" / "tulu_code.jsonl").unlink()
    with pytest.raises(InputError, match="no file or sub-folder 'tulu_code'"):
        load_mixture("math", {"chat": tmp_path / "chat"})


def test_a_documents_artifact_is_rendered_already(tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "artifact.json").write_text('{"kind": "documents"}')
    mixture = load_mixture("math_code_science", {"chat": tmp_path / "documents", "dclm_edu": tmp_path / "documents"})
    for name in ("chat", "dclm_edu"):
        (part,) = next(source for source in mixture.sources if source.name == name).parts
        assert (part.path, part.where, part.render.kind) == (str(tmp_path / "documents"), (), "text")


def test_an_override_may_change_the_rendering(load):
    mixture = load(GOOD, overrides={"a": {"path": "x.jsonl", "render": {"kind": "text", "column": "body"}}})
    part = mixture.sources[0].parts[0]
    assert (part.path, part.render.column) == ("x.jsonl", "body")


def test_lists_and_sources_in_files_of_ones_own_count_from_the_mixture_too(load, tmp_path):
    (tmp_path / "mine.yaml").write_text("{path: rows.jsonl, domain: math}")
    mixture = load("{decontamination: screen.yaml, sources: [{source: mine.yaml, weight: 1}]}")
    assert mixture.decontamination == str(tmp_path / "screen.yaml")
    assert (mixture.sources[0].name, mixture.sources[0].domain) == ("mine", "math")
    assert mixture.sources[0].parts[0].path == str(tmp_path / "rows.jsonl")


def test_the_rendering_of_an_override_is_checked_too(load):
    override = {"a": {"path": "x", "where": [{"column": "c", "matches": "["}]}}
    with pytest.raises(InputError, match=r"override of a: '\[' is no regular expression"):
        load(GOOD, overrides=override)

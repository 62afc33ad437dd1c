"""Decontamination: planted spans are found in every disguise, ordinary text is not."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.data.benchmarks import DEFINITIONS, Item, load_benchmarks
from prism_nemo.data.contamination import PIECE, Screen, build_screen, index_items, load_screen
from prism_nemo.data.mixture import load_mixture
from prism_nemo.data.prepare import prepare
from prism_nemo.data.words import normalize, windows, words
from prism_nemo.errors import InputError
from tests.data.conftest import write_jsonl
from tests.data.test_prepare import settings_of, source_report

rng = random.Random(11)
VOCABULARY = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]


def prose(count: int) -> list[str]:
    return rng.choices(VOCABULARY, k=count)


QUESTIONS = [" ".join(prose(rng.randint(14, 60))) + "?" for _ in range(200)]


def screen_of(texts: list[str], n: int = 13, shortest: int = 8) -> Screen:
    tables, _ = index_items([Item("bench", str(number), text) for number, text in enumerate(texts)], n, shortest)
    return Screen(tables, [("bench", str(number)) for number in range(len(texts))])


def found(screen: Screen, documents: list[str]) -> dict[int, list[dict]]:
    return {number: hit["hits"] for number, hit in screen.find([text.encode() for text in documents])}


DISGUISES = {
    "exact": lambda words: " ".join(words),
    "case": lambda words: " ".join(words).upper(),
    "title": lambda words: " ".join(word.title() for word in words),
    "spacing": lambda words: "\n\t  ".join(words),
    "punctuation": lambda words: ", (".join(words) + ")!",
    "no-break space": lambda words: "\u00a0".join(words),
    "quotes": lambda words: "“ ” — … ".join(words),
    "full width": lambda words: " ".join("".join(chr(ord(c) + 0xFEE0) for c in word) for word in words),
    "markup": lambda words: "** _".join(words),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_every_planted_span_is_found(disguise):
    screen = screen_of(QUESTIONS)
    documents, planted = [], []
    for number, question in enumerate(QUESTIONS):
        run = words(normalize(question.encode()))
        start = rng.randrange(len(run) - 12)
        span = [word.decode() for word in run[start : start + 13]]
        before, after = prose(rng.randint(0, 400)), prose(rng.randint(0, 400))
        documents.append(" ".join(before) + " " + DISGUISES[disguise](span) + " " + " ".join(after))
        planted.append((number, len(before)))
    hits = found(screen, documents)
    for number, first in planted:
        assert [hit["item"] for hit in hits[number]] == [str(number)]
        assert hits[number][0]["words"][0] <= first < hits[number][0]["words"][1]
        assert hits[number][0]["benchmark"] == "bench"


def test_twelve_words_are_not_enough_and_clean_text_is_clean():
    screen = screen_of(QUESTIONS)
    documents = [" ".join(prose(300)) for _ in range(300)]
    for question in QUESTIONS:
        run = question.rstrip("?").split()
        documents.append(" ".join([*prose(5), *run[:12], "otherwise", *prose(5)]))
    assert found(screen, documents) == {}


def test_words_of_two_documents_do_not_join():
    run = QUESTIONS[0].split()
    assert found(screen_of(QUESTIONS), [" ".join(run[:7]), " ".join(run[7:14])]) == {}


def test_short_items_count_as_a_whole_and_very_short_ones_not_at_all():
    tables, too_short = index_items(
        [Item("b", "0", "one two three four five six seven eight nine"), Item("b", "1", "a b")], 13, 8
    )
    assert [table.length for table in tables] == [9]
    assert too_short == 1
    screen = Screen(tables, [("b", "0"), ("b", "1")])
    assert 0 in found(screen, ["zero one two three four five six seven eight nine ten"])
    assert found(screen, ["one two three four five six seven eight", "a b"]) == {}


def test_a_span_is_found_wherever_it_stands_in_a_very_long_document():
    screen = screen_of(QUESTIONS[:3])
    filler = " ".join(prose(PIECE // 4))
    for place in (0, PIECE // 2, PIECE - 40, PIECE + 5, len(filler)):
        at = filler.find(" ", place) if place < len(filler) else len(filler)
        hits = found(screen, ["short one", filler[:at] + " " + QUESTIONS[1] + " " + filler[at:]])
        assert list(hits) == [1]
        assert {hit["item"] for hit in hits[1]} == {"1"}


@given(st.lists(st.text(max_size=30), max_size=20), st.integers(1, 5))
def test_hashes_of_windows_agree_with_the_words(texts, n):
    """Brute force: equal runs of words have equal hashes, different ones different hashes (but see `hashes`)."""
    text = normalize(" ".join(texts).encode("utf-8", "replace"))
    split = words(text)
    runs = [tuple(split[i : i + n]) for i in range(len(split) - n + 1)]
    hashes = windows(text).hashes(n).tolist()
    assert len(hashes) == len(runs)
    assert len(set(zip(hashes, runs, strict=True))) == len(set(runs))
    if all(len(word) <= 16 for word in split):
        assert len(set(hashes)) == len(set(runs))


def test_the_index_survives_the_disk(tmp_path):
    write_jsonl(tmp_path / "bench.jsonl", [{"question": question} for question in QUESTIONS])
    (tmp_path / "list.yaml").write_text(
        "benchmarks: [{name: bench, path: bench.jsonl, render: {column: question}}]\nngram: 10"
    )
    folder, mark = build_screen(str(tmp_path / "list.yaml"), tmp_path / "work")
    assert build_screen(str(tmp_path / "list.yaml"), tmp_path / "work") == (folder, mark)
    hits = found(load_screen(folder), ["x " + " ".join(QUESTIONS[5].split()[:10])])
    assert hits[0][0]["item"] == "bench.jsonl:6"
    assert np.all(np.diff(load_screen(folder).tables[0].hashes.astype(object)) >= 0)


def test_of_two_items_with_the_same_run_the_first_is_named():
    hits = found(screen_of([QUESTIONS[0], *QUESTIONS[:20]]), [f"x {QUESTIONS[0]} y"])
    assert [hit["item"] for hit in hits[0]] == ["0"]


def test_contaminated_documents_are_left_out_and_recorded(tmp_path, three_sources, tokenizer):
    write_jsonl(tmp_path / "bench.jsonl", [{"question": question} for question in QUESTIONS])
    (tmp_path / "list.yaml").write_text("benchmarks: [{name: quiz, path: bench.jsonl, render: {column: question}}]")
    leak = {"text": "They asked: " + QUESTIONS[7].upper() + " and so on"}
    three_sources(b=[leak, leak], extra=f"decontamination: {tmp_path / 'list.yaml'}")
    mixture = load_mixture(tmp_path / "mixture.yaml")
    out = prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=10**6, unit_bytes=4000))
    report = source_report(out, "b")
    assert (report.contaminated.documents, report.duplicate.documents) == (1, 1)
    assert report.balance == 0
    entries = [json.loads(line) for line in (out / "contaminated" / "b.jsonl").read_text().splitlines()]
    assert entries[0]["line"] == 81
    assert entries[0]["hits"][0]["item"] == "bench.jsonl:8"
    assert entries[0]["hits"][0]["benchmark"] == "quiz"
    assert entries[0]["hits"][0]["text"].startswith(QUESTIONS[7].split()[0])
    assert source_report(out, "a").contaminated.documents == 0


def test_the_papers_list_is_the_evaluations_own_definitions():
    parts = {part.name: part for part in load_benchmarks("paper").benchmarks}
    assert set(parts) >= {path.stem for path in DEFINITIONS.glob("*.yaml")}
    assert parts["gpqa_diamond"].render.column == "Question"
    assert parts["aime24"].hub.id == "HuggingFaceH4/aime_2024"
    with pytest.raises(InputError, match="no benchmark 'aime27'"):
        load_benchmarks("paper", {"aime27": "x"})


def test_the_leaderboards_tasks_are_on_the_papers_list():
    """Data set, configuration and split of every leaderboard task, as the installed harness has them."""
    tasks = Path(pytest.importorskip("lm_eval").__file__).parent / "tasks"
    listed = {
        (part.hub.id, part.hub.config, part.hub.split) for part in load_benchmarks("paper").benchmarks if part.hub
    }
    folders = ("bbh_mc", "ifeval", "math", "mmlu_pro", "musr")
    leaderboard = [path for folder in folders for path in (tasks / "leaderboard" / folder).glob("[!_]*.yaml")]
    files = ["arc/arc_challenge", "hellaswag/hellaswag", "truthfulqa/truthfulqa_mc2", "winogrande/default"]
    for path in (*leaderboard, *(tasks / f"{name}.yaml" for name in (*files, "gsm8k/gsm8k"))):
        task = _harness_task(path)
        config = None if "MATH" in task["dataset_path"] else task.get("dataset_name")  # ours: all subjects at once
        split = task.get("test_split") or task["validation_split"]
        assert (task["dataset_path"], config, split) in listed, path
    assert ("cais/mmlu", "all", "test") in listed
    assert ("Idavidrein/gpqa", "gpqa_extended", "train") in listed, "which holds main and diamond"


def _harness_task(path: Path) -> dict:
    class Loader(yaml.SafeLoader):
        """Reads `!function` as text."""

    Loader.add_constructor("!function", lambda loader, node: node.value)
    task = yaml.load(path.read_text(), Loader)
    included = {} if "include" not in task else _harness_task(path.parent / task["include"])
    return {**included, **task}


def test_items_of_an_evaluated_benchmark_carry_its_ids(tmp_path):
    rows = [{"Record ID": "rec1", "Question": QUESTIONS[0], "Correct Answer": "x"}]
    local = {"gpqa_diamond": write_jsonl(tmp_path / "gpqa.jsonl", rows)}
    (tmp_path / "list.yaml").write_text("benchmarks: [gpqa_diamond]")
    assert load_benchmarks(tmp_path / "list.yaml", local).items() == [Item("gpqa_diamond", "rec1", QUESTIONS[0])]
    (tmp_path / "list.yaml").write_text("benchmarks: [gpqa_diamon]")
    with pytest.raises(InputError, match=r"has no benchmark 'gpqa_diamon' \(did you mean 'gpqa_diamond'\?\)"):
        load_benchmarks(tmp_path / "list.yaml")


def test_a_benchmark_that_cannot_be_read_stops_the_run(tmp_path, three_sources, tokenizer):
    (tmp_path / "list.yaml").write_text("benchmarks: [{name: quiz, path: nowhere.jsonl}]")
    three_sources(extra=f"decontamination: {tmp_path / 'list.yaml'}")
    with pytest.raises(InputError, match=r"benchmark quiz: .*nowhere\.jsonl does not exist"):
        prepare(load_mixture(tmp_path / "mixture.yaml"), tokenizer, **settings_of(tmp_path))
    (tmp_path / "list.yaml").write_text("benchmarks: [{name: quiz}]")
    with pytest.raises(InputError, match=r"benchmark quiz needs a local path; give its path with --benchmark NAME"):
        prepare(load_mixture(tmp_path / "mixture.yaml"), tokenizer, **settings_of(tmp_path))

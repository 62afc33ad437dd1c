"""prepare: accounting, exact budgets, the same bytes for any split of the work, and nothing lost on the way."""

import dataclasses
import gzip
import json
import os
import random
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from prism_nemo.artifacts import read_manifest
from prism_nemo.data import work
from prism_nemo.data.blend import read_report
from prism_nemo.data.indexed import documents
from prism_nemo.data.mixture import Mixture, load_mixture
from prism_nemo.data.prepare import prepare
from prism_nemo.data.report import Count, SourceReport
from prism_nemo.data.select import FATES
from prism_nemo.data.speed import Speed
from prism_nemo.data.verify import verify_blend
from prism_nemo.errors import InputError, PrismError
from tests.data.conftest import text, write_jsonl


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest, which carries times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "artifact.json"
    }


def source_report(folder: Path, name: str) -> SourceReport:
    entry = next(source for source in read_report(folder)["sources"] if source["name"] == name)
    return SourceReport(**{key: Count(**value) if key in (*FATES, "short") else value for key, value in entry.items()})


def settings_of(tmp_path: Path, **changes) -> dict:
    return {"seq_length": 32, "valid_tokens": 300, "out": tmp_path / "out", "tokens": 3000, **changes}


def test_documents_are_the_texts_with_one_end_token_each(tmp_path, three_sources, tokenizer):
    out = prepare(three_sources(), tokenizer, **settings_of(tmp_path, tokens=10**6, valid_tokens=0))
    reference = AutoTokenizer.from_pretrained(tokenizer)
    expected = [
        [*reference(json.loads(line)["text"], add_special_tokens=False).input_ids, reference.eos_token_id]
        for line in (tmp_path / "a.jsonl").read_text().splitlines()
    ]
    assert [row.tolist() for row in documents(out / "train" / "a")] == expected
    assert verify_blend(out) == []


@pytest.mark.parametrize("changes", [{"workers": 2}, {"encoder": "tokenizers"}, {"unit_bytes": 900}])
def test_same_bytes_for_any_split_of_the_work(tmp_path, three_sources, tokenizer, monkeypatch, changes):
    """Only the report's count of rows that were not read may depend on the size of units: it rests on a sample."""
    pools = []
    pool = work._pool
    monkeypatch.setattr(work, "WORTH_A_POOL", 0)
    monkeypatch.setattr(work, "_pool", lambda *arguments: pools.append(arguments) or pool(*arguments))
    mixture = three_sources(a=[b"{broken", {"text": "copy"}, {"text": "copy"}])
    common = {"max_bad_fraction": 0.1, "unit_bytes": 4000}
    plain = content(prepare(mixture, tokenizer, **settings_of(tmp_path, **common)))
    parts = settings_of(tmp_path, **{**common, **changes, "out": tmp_path / "other"})
    other = content(prepare(mixture, tokenizer, **parts))
    if "unit_bytes" in changes:
        assert plain.pop("report.json") and other.pop("report.json")
    assert plain == other
    assert len(pools) == ("workers" in changes)


def test_shards_of_an_array_give_the_same_bytes(tmp_path, three_sources, tokenizer, monkeypatch):
    monkeypatch.setattr(work, "WORTH_A_POOL", 0)
    mixture = three_sources(a=[b"{broken"])
    common = {"max_bad_fraction": 0.1, "unit_bytes": 4000}
    plain = prepare(mixture, tokenizer, **settings_of(tmp_path, **common))
    parts = settings_of(tmp_path, out=tmp_path / "parts", **common)
    for number in (2, 0, 1):
        prepare(mixture, tokenizer, **parts, shard=(number, 3), workers=1 + number)
        assert not (tmp_path / "parts").exists()
    made = {path.name for path in (tmp_path / ".parts.work" / "shards").iterdir()}
    seen = []
    prepare(mixture, tokenizer, **parts, on_progress=seen.append)
    assert len(made) == len(seen) > 6
    assert content(plain) == content(tmp_path / "parts")
    assert not (tmp_path / ".parts.work").exists()


def test_another_seed_draws_other_documents_and_the_same_seed_the_same(tmp_path, three_sources, tokenizer):
    mixture = three_sources()
    first = prepare(mixture, tokenizer, **settings_of(tmp_path))
    second = prepare(mixture, tokenizer, **settings_of(tmp_path, out=tmp_path / "second", seed=7))
    assert content(first)["train/a.bin"] != content(second)["train/a.bin"]
    drawn = [row.tobytes() for row in documents(first / "train" / "a")]
    everything = prepare(
        mixture, tokenizer, **settings_of(tmp_path, out=tmp_path / "all", tokens=10**6, valid_tokens=0)
    )
    positions = [number for number, row in enumerate(documents(everything / "train" / "a")) if row.tobytes() in drawn]
    assert len(drawn) == len(positions)
    assert max(positions) > 90, "a random sample, not the first rows"


def test_budget_is_met_exactly_and_a_small_source_repeats(tmp_path, three_sources, tokenizer):
    out = prepare(three_sources((900, 500, 4)), tokenizer, **settings_of(tmp_path, tokens=20_000))
    a, c = source_report(out, "a"), source_report(out, "c")
    assert a.tokens_drawn == 10_000
    longest = max(len(row) for row in documents(out / "train" / "a"))
    assert 10_000 * 1.01 <= a.train.tokens <= 10_000 * 1.01 + 2 * 33 + longest
    assert a.left_over.tokens > 0
    assert a.epochs == pytest.approx(10_000 / a.population)
    assert a.epochs < 0.9, "of all there is, not of what was kept"
    assert c.left_over.documents == 0
    assert c.epochs == pytest.approx(4000 / c.train.tokens)
    assert c.epochs > 1


def limited(tmp_path: Path, mixture: Mixture) -> Mixture:
    """Source c may be drawn once."""
    c = dataclasses.replace(mixture.sources[2], max_epochs=1.0)
    return dataclasses.replace(mixture, sources=(*mixture.sources[:2], c))


def test_a_shortage_is_foreseen_before_any_work(tmp_path, three_sources, tokenizer):
    """A small one is a warning, because a sample may err; a large one is refused at once."""
    mixture = limited(tmp_path, three_sources((900, 500, 40)))
    told: list[str] = []
    with pytest.raises(InputError, match=r"ask for at most [\d,]+ tokens"):
        prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=20_000, on_warning=told.append))
    assert len(told) == 1
    estimate = float(re.search(r"source c has about ([\d,]+) tokens", told[0])[1].replace(",", ""))
    exact = source_report(prepare(three_sources((900, 500, 40)), tokenizer, **settings_of(tmp_path)), "c")
    assert estimate == pytest.approx(exact.population, rel=0.3)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(InputError, match="source c has about"):
        prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=200_000, out=tmp_path / "far"))
    assert not (tmp_path / ".far.work" / "shards").exists()


def test_the_speed_counts_what_this_call_made(tmp_path, three_sources, tokenizer):
    mixture = three_sources()
    out = prepare(mixture, tokenizer, **settings_of(tmp_path, valid_tokens=0, tokens=10**6))
    speed = Speed(**read_manifest(out).metrics["speed"])
    assert speed.tokens == sum(source_report(out, name).train.tokens for name in "abc")
    assert speed.bytes == sum((tmp_path / f"{name}.jsonl").stat().st_size for name in "abc")
    assert speed.seconds(2 * speed.tokens, 4) == pytest.approx(speed.cpu_seconds / 2 + 2 * speed.file_seconds)
    again = settings_of(tmp_path, valid_tokens=0, tokens=10**6, out=tmp_path / "again")
    prepare(mixture, tokenizer, **again, shard=(0, 1))
    assert read_manifest(prepare(mixture, tokenizer, **again)).metrics["speed"]["tokens"] == 0


def test_max_epochs_refuses_a_budget_and_says_what_is_possible(tmp_path, three_sources, tokenizer):
    mixture = limited(tmp_path, three_sources((900, 500, 30)))
    with pytest.raises(
        InputError, match=r"source c .* epochs, max_epochs is 1; ask for at most ([\d,]+) tokens"
    ) as error:
        prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=20_000))
    most = int(str(error.value).split("at most ")[1].split(" tokens")[0].replace(",", ""))
    assert prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=most))


def test_only_as_much_of_a_large_source_is_read_as_the_budget_needs(tmp_path, three_sources, tokenizer):
    """The draw does not depend on it: with the whole source read, the same documents are trained on."""
    mixture = three_sources((3000, 60, 30))
    out = prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=4000, valid_tokens=0))
    report = source_report(out, "a")
    assert report.not_drawn > 1500
    assert report.balance == 0
    whole = prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=10**6, valid_tokens=0, out=tmp_path / "whole"))
    assert source_report(whole, "a").not_drawn == 0
    drawn = {row.tobytes() for row in documents(out / "train" / "a")}
    assert drawn <= {row.tobytes() for row in documents(whole / "train" / "a")}
    assert report.train.tokens >= 2000 * 1.01


def test_a_bound_that_was_too_low_is_widened(tmp_path, three_sources, tokenizer):
    """The beginning of the file is rich, the rest poor: the first stretch of the draw does not fill the budget."""
    mixture = three_sources((40, 60, 30))
    rng = random.Random(5)
    rich = [{"text": text(rng, 400, 500)} for _ in range(45)]
    poor = [{"text": f"short {number} {rng.random()}", "pad": "x" * 30} for number in range(6000)]
    write_jsonl(tmp_path / "a.jsonl", [*rich, *poor])
    out = prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=40_000, valid_tokens=0))
    report = source_report(out, "a")
    assert report.train.tokens >= 20_000 * 1.01
    assert report.balance == 0
    other = prepare(
        mixture, tokenizer, **settings_of(tmp_path, tokens=40_000, valid_tokens=0, out=tmp_path / "b", workers=2)
    )
    assert content(out) == content(other)


def test_bad_rows_are_kept_with_file_line_and_reason(tmp_path, three_sources, tokenizer):
    bad = {
        b'{"text": "cut': "broken JSON",
        b"[1, 2]": "not a JSON object",
        b'{"words": 1}': "missing key 'text'",
        b'{"text": null}': "null in 'text'",
        b'{"text": 5}': "wrong type in 'text': int, not text",
        b'{"text": "\\ud800"}': "lone surrogate",
        b'{"text": "\xff"}': "bad UTF-8",
        b'{"text": "  "}': "empty after rendering",
        b"": "blank line",
        b'{"text": "' + b"x " * 3000 + b'"}': "document over the length limit",
    }
    mixture = three_sources(a=list(bad), b=[{"text": "good"}])
    out = prepare(
        mixture,
        tokenizer,
        **settings_of(tmp_path, max_bad_fraction=0.2, max_document_bytes=5000, unit_bytes=2000, tokens=10**6),
    )
    entries = [json.loads(line) for line in (out / "quarantine" / "a.jsonl").read_text().splitlines()]
    lines = (tmp_path / "a.jsonl").read_bytes().split(b"\n")
    assert [entry["reason"] for entry in entries] == list(bad.values())
    assert [lines[entry["line"] - 1] for entry in entries] == list(bad)
    assert {entry["file"] for entry in entries} == {"a.jsonl"}
    report = source_report(out, "a")
    assert report.quarantined == dict.fromkeys(bad.values(), 1)
    assert report.balance == 0
    assert report.train.documents + report.valid.documents == 120
    assert not (out / "quarantine" / "b.jsonl").exists()


def test_too_many_bad_rows_stop_with_the_counts(tmp_path, three_sources, tokenizer):
    mixture = three_sources(c=[b"{"] * 2 + [{"no": 1}])
    message = r"3 of 33 rows are bad \(2 broken JSON, 1 missing key 'text'\).* one is .*c\.jsonl: line 31;"
    with pytest.raises(PrismError, match=message):
        prepare(mixture, tokenizer, **settings_of(tmp_path))
    assert not (tmp_path / "out").exists()


def test_strict_stops_at_the_first_bad_row(tmp_path, three_sources, tokenizer):
    with pytest.raises(InputError, match=r"c\.jsonl: line 31 \(source c\): broken JSON"):
        prepare(three_sources(c=[b"{"]), tokenizer, **settings_of(tmp_path, strict=True))


def test_duplicates_go_across_units_and_sources_and_the_first_stays(tmp_path, three_sources, tokenizer):
    twin = {"text": "exactly the same words in both sources"}
    mixture = three_sources(a=[twin, twin], c=[twin])
    out = prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=10**6, valid_tokens=0, unit_bytes=900))
    assert source_report(out, "a").duplicate.documents == 1
    assert source_report(out, "c").duplicate.documents == 1
    assert source_report(out, "c").duplicate.tokens > 5
    assert source_report(out, "c").train.documents == 30


def test_nothing_is_written_when_a_later_source_falls_short(tmp_path, three_sources, tokenizer):
    three_sources(c=[])
    write_jsonl(tmp_path / "c.jsonl", [{"text": "twin"}])
    write_jsonl(tmp_path / "a.jsonl", [{"text": "twin"}, {"text": "another"}])
    with pytest.raises(PrismError, match=r"source c has no document left .* 1 duplicate"):
        prepare(load_mixture(tmp_path / "mixture.yaml"), tokenizer, **settings_of(tmp_path))
    assert not (tmp_path / ".out.partial" / "train").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers 0"),
        ({"max_document_bytes": 0}, "max_document_bytes 0"),
        ({"max_bad_fraction": -1}, "max_bad_fraction -1 must be from 0 to 1"),
        ({"max_bad_fraction": float("nan")}, "must be from 0 to 1"),
        ({"tokens": 0}, "tokens 0"),
        ({"shard": (2, 2)}, "shard 2/2"),
    ],
)
def test_impossible_options_are_refused(tmp_path, three_sources, tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        prepare(three_sources(), tokenizer, **settings_of(tmp_path, **options))


def test_a_forbidden_place_is_one_line(tmp_path, three_sources, tokenizer):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/\.out\.work: Not a directory"):
        prepare(three_sources(), tokenizer, **settings_of(tmp_path, out=tmp_path / "file" / "out"))


def test_an_end_token_in_the_text_is_counted(tmp_path, three_sources, tokenizer):
    """It becomes the real token, as in preprocess_data.py; the report says in how many documents."""
    leaky = [{"text": "one <|endoftext|> two <|endoftext|>"}, {"text": "<|endoftext|> three"}]
    out = prepare(three_sources(b=leaky), tokenizer, **settings_of(tmp_path, tokens=10**6, valid_tokens=0))
    assert source_report(out, "b").eod_inside == 2
    assert source_report(out, "a").eod_inside == 0
    assert sum((row == 0).sum() == 3 for row in documents(out / "train" / "b")) == 1


def test_bos_stands_before_each_document(tmp_path, three_sources, tokenizer):
    raw = json.loads((tokenizer / "tokenizer.json").read_text())
    pad = next(token["id"] for token in raw["added_tokens"] if token["content"] == "<|pad|>")
    pieces = [{"SpecialToken": {"id": "<|pad|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"<|pad|>": {"id": "<|pad|>", "ids": [pad], "tokens": ["<|pad|>"]}}
    post = {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": special}
    folder = tmp_path / "bos"
    shutil.copytree(tokenizer, folder)
    (folder / "artifact.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps({**raw, "post_processor": post}))
    mixture = three_sources()
    out = prepare(mixture, folder, **settings_of(tmp_path, tokens=10**6, valid_tokens=0))
    plain = prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=10**6, valid_tokens=0, out=tmp_path / "plain"))
    for with_bos, without in zip(documents(out / "train" / "a"), documents(plain / "train" / "a"), strict=True):
        assert with_bos.tolist() == [pad, *without.tolist()]


def test_min_tokens_filters_short_documents(tmp_path, three_sources, tokenizer):
    out = prepare(three_sources(extra="min_tokens: 60"), tokenizer, **settings_of(tmp_path))
    report = source_report(out, "a")
    assert report.short.documents > 0
    assert report.balance == 0
    assert min(len(row) for row in documents(out / "train" / "a")) >= 60


def test_groups_stay_on_one_side(tmp_path, tokenizer):
    rng = random.Random(2)
    rows = [{"question": f"question {number % 40}", "text": text(rng)} for number in range(400)]
    write_jsonl(tmp_path / "q.jsonl", rows)
    (tmp_path / "m.yaml").write_text("sources: [{name: q, weight: 1, path: q.jsonl, group: question}]")
    mixture = load_mixture(tmp_path / "m.yaml")
    out = prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=10**6, valid_tokens=3000, test_tokens=2000))
    reference = AutoTokenizer.from_pretrained(tokenizer)
    ids = {tuple(reference(row["text"], add_special_tokens=False).input_ids): row["question"] for row in rows}
    sides = [
        {ids[tuple(row[:-1].tolist())] for row in documents(out / split / "q")} for split in ("train", "valid", "test")
    ]
    assert all(sides)
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_a_tiny_source_still_has_a_held_out_document(tmp_path, three_sources, tokenizer):
    out = prepare(three_sources((2, 1, 3)), tokenizer, **settings_of(tmp_path, valid_tokens=10**6))
    assert source_report(out, "a").valid.documents == 1
    assert source_report(out, "b").valid.documents == 0
    assert source_report(out, "c").train.documents == 2


def test_up_to_date_is_skipped_and_another_request_is_refused(tmp_path, three_sources, tokenizer):
    mixture = three_sources()
    out = prepare(mixture, tokenizer, **settings_of(tmp_path))
    before = (out / "artifact.json").read_bytes()
    assert prepare(mixture, tokenizer, **settings_of(tmp_path)) == out
    assert (out / "artifact.json").read_bytes() == before
    with pytest.raises(InputError, match="tokens: 3000 -> 4000"):
        prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=4000))
    assert not (tmp_path / ".out.work").exists()
    changed = three_sources(seed=9)
    with pytest.raises(InputError, match="files"):
        prepare(changed, tokenizer, **settings_of(tmp_path))


def test_every_file_counts_also_of_parts_whose_files_have_the_same_name(tmp_path, tokenizer):
    rng = random.Random(4)
    for part in "pq":
        write_jsonl(tmp_path / part / "rows.jsonl", [{"text": text(rng)} for _ in range(30)])
    parts = "{name: p, path: p}, {name: q, path: q, max_documents: 7}"
    (tmp_path / "m.yaml").write_text(f"sources: [{{name: s, weight: 1, parts: [{parts}]}}]")
    mixture = load_mixture(tmp_path / "m.yaml")
    out = prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=10**6, valid_tokens=0))
    report = source_report(out, "s")
    assert list(report.files) == ["s.p/rows.jsonl", "s.q/rows.jsonl"]
    assert (report.train.documents, report.left_over.documents) == (37, 0)
    assert report.filtered == {"max_documents": 23}
    assert report.population == report.train.tokens
    for part in "pq":
        old = (tmp_path / part / "rows.jsonl").read_bytes()
        write_jsonl(tmp_path / part / "rows.jsonl", [{"text": "changed"}])
        with pytest.raises(InputError, match="was made differently: files"):
            prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=10**6, valid_tokens=0))
        (tmp_path / part / "rows.jsonl").write_bytes(old)


def test_what_one_source_has_beyond_its_limit_another_may_have(tmp_path, tokenizer):
    rng = random.Random(4)
    write_jsonl(tmp_path / "a.jsonl", [{"text": text(rng)} for _ in range(30)])
    (tmp_path / "m.yaml").write_text(
        "sources: [{name: a, weight: 50, path: a.jsonl, max_documents: 7}, {name: b, weight: 50, path: a.jsonl}]"
    )
    out = prepare(load_mixture(tmp_path / "m.yaml"), tokenizer, **settings_of(tmp_path, tokens=10**6, valid_tokens=0))
    assert [source_report(out, name).train.documents for name in "ab"] == [7, 23]
    assert source_report(out, "b").duplicate.documents == 7


def test_a_cache_serves_another_budget_without_encoding_again(tmp_path, three_sources, tokenizer):
    mixture = three_sources()
    common = {"cache": tmp_path / "cache", "unit_bytes": 4000}
    prepare(mixture, tokenizer, **settings_of(tmp_path, tokens=50_000, **common))
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "shards").iterdir()}
    prepare(mixture, tokenizer, **settings_of(tmp_path, out=tmp_path / "more", tokens=60_000, **common))
    assert stamps == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "shards").iterdir()}


def test_what_a_killed_process_left_in_the_cache_is_removed(tmp_path, three_sources, tokenizer):
    shards = tmp_path / "cache" / "shards"
    for name in (".old.node.7", ".new.node.8"):
        (shards / name).mkdir(parents=True)
        (shards / name / "ids.bin").write_text("half")
    os.utime(shards / ".old.node.7", (0, 0))
    prepare(three_sources(), tokenizer, **settings_of(tmp_path, cache=tmp_path / "cache"))
    assert [path.name for path in shards.glob(".*")] == [".new.node.8"]


def test_a_truncated_file_stops_with_its_name(tmp_path, three_sources, tokenizer):
    three_sources()
    packed = gzip.compress((tmp_path / "a.jsonl").read_bytes())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-20])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz is truncated"):
        prepare(
            load_mixture(tmp_path / "mixture.yaml", {"a": tmp_path / "a.jsonl.gz"}), tokenizer, **settings_of(tmp_path)
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "writer", ["prepare.hash_files", "prepare.build_screen", "work.own_suffix", "assemble.write_index"]
)
def test_a_full_disk_says_so_and_the_next_run_goes_on(tmp_path, three_sources, tokenizer, monkeypatch, writer):
    mixture = three_sources()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"prism_nemo.data.{writer}", full)
    with pytest.raises(PrismError, match="no space left"):
        prepare(mixture, tokenizer, **settings_of(tmp_path))
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert verify_blend(prepare(mixture, tokenizer, **settings_of(tmp_path))) == []


ROW = st.one_of(
    st.sampled_from([b"{", b'{"text": null}', b'{"text": ""}', {"text": "skip me", "keep": 0}, {"text": "twin"}]),
    st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1, max_size=40).map(
        lambda t: {"text": t}
    ),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=60), budget=st.integers(1, 400), unit_bytes=st.integers(20, 2000))
def test_every_row_is_accounted_for(tmp_path_factory, tokenizer, rows, budget, unit_bytes):
    """documents in = kept + left over + filtered + duplicate + contaminated + quarantined, whatever the rows are."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [row if isinstance(row, bytes) else {"keep": 1, **row} for row in rows] + [
        {"text": "one good row", "keep": 1}
    ]
    write_jsonl(folder / "s.jsonl", rows)
    (folder / "m.yaml").write_text("sources: [{name: s, weight: 1, path: s.jsonl, where: [{column: keep, equals: 1}]}]")
    out = prepare(
        load_mixture(folder / "m.yaml"),
        tokenizer,
        budget,
        folder / "out",
        seq_length=8,
        valid_tokens=10,
        max_bad_fraction=1.0,
        unit_bytes=unit_bytes,
    )
    report = source_report(out, "s")
    assert report.rows == len(rows)
    assert report.balance == 0
    quarantine = out / "quarantine" / "s.jsonl"
    kept = len(quarantine.read_text().splitlines()) if quarantine.is_file() else 0
    assert kept == sum(report.quarantined.values())
    for split in ("train", "valid"):
        count = getattr(report, split)
        found = list(documents(out / split / "s")) if count.documents else []
        assert (len(found), sum(map(len, found))) == (count.documents, count.tokens)

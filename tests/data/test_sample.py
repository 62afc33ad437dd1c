"""The look at the sources: its estimate of tokens, for every kind of file, and what is read because of it."""

import dataclasses
import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from prism_nemo.data import rows as rows_module
from prism_nemo.data.blend import read_report
from prism_nemo.data.encode import load_encoder, read_tokenizer
from prism_nemo.data.files import plan_units
from prism_nemo.data.mixture import Hub, Mixture, Part, Render, Source
from prism_nemo.data.prepare import prepare
from prism_nemo.data.sample import Estimate, sample_sources
from prism_nemo.data.select import Budget
from prism_nemo.data.stretch import first_bounds
from prism_nemo.data.supply import expected_shortages
from prism_nemo.errors import InputError
from tests.data.conftest import text

DOCUMENTS = [{"text": text(random.Random(number), 5, 60 + number // 40)} for number in range(4000)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in DOCUMENTS).encode()


def _arrow(path: Path) -> None:
    table = pa.Table.from_pylist(DOCUMENTS)
    with pa.ipc.new_stream(path, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=300):
            writer.write_batch(batch)


def _texts(path: Path) -> None:
    path.mkdir()
    for number, row in enumerate(DOCUMENTS[:200]):
        (path / f"{number}.txt").write_text(row["text"])


WRITERS = {
    "rows.jsonl": lambda path: path.write_bytes(LINES),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES[:5000]) + gzip.compress(LINES[5000:])),
    "rows.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(LINES)),
    "rows.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(DOCUMENTS), path, row_group_size=400),
    "rows.arrow": _arrow,
    "texts": _texts,
}


def mixture(*parts: Part, **source) -> Mixture:
    return Mixture(name="m", sources=(Source(name="s", weight=1.0, parts=parts, **source),))


def estimate(chosen: Mixture, tokenizer: Path, unit_bytes: int = 50_000) -> Estimate | None:
    (sample,) = sample_sources(chosen, plan_units(chosen, unit_bytes))
    return sample.estimate(chosen.sources[0], load_encoder("tokenizers", read_tokenizer(tokenizer)))


def tokens_of(rows: list, tokenizer: Path) -> int:
    ids = load_encoder("tokenizers", read_tokenizer(tokenizer))([row["text"] for row in rows])
    return sum(map(len, ids)) + len(rows)


@pytest.mark.parametrize("name", WRITERS)
def test_tokens_are_estimated_from_every_kind_of_file(tmp_path, tokenizer, name):
    WRITERS[name](tmp_path / name)
    found = estimate(mixture(Part(path=str(tmp_path / name))), tokenizer)
    assert found is not None
    rows = DOCUMENTS[:200] if name == "texts" else DOCUMENTS
    assert found.tokens == pytest.approx(tokens_of(rows, tokenizer), rel=0.2)
    assert found.believed == (not name.endswith((".gz", ".zst")))


def test_of_a_large_compressed_file_only_the_beginning_is_unpacked(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("prism_nemo.data.sample.COMPRESSED", 50_000)
    monkeypatch.setattr(rows_module, "CHUNK", 4096)
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(LINES))
    found = estimate(mixture(Part(path=str(tmp_path / "r.jsonl.gz"))), tokenizer)
    assert found is not None
    assert found.tokens == pytest.approx(tokens_of(DOCUMENTS, tokenizer), rel=0.3)


def test_parts_of_another_density_are_estimated_one_by_one(tmp_path, tokenizer):
    """As one pool, the bytes that are not rendered would count like text."""
    padded = [{"words": row["text"], "pad": "x" * 3000} for row in DOCUMENTS[:400]]
    (tmp_path / "padded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in padded))
    (tmp_path / "plain.jsonl").write_bytes(LINES)
    plain = Part(name="plain", path=str(tmp_path / "plain.jsonl"))
    other = Part(name="padded", path=str(tmp_path / "padded.jsonl"), render=Render(column="words"))
    found = estimate(mixture(plain, other), tokenizer)
    assert found is not None
    assert found.tokens == pytest.approx(tokens_of(DOCUMENTS + DOCUMENTS[:400], tokenizer), rel=0.2)


def test_the_entry_of_a_hub_source_counts_where_the_sample_shows_nothing(tmp_path, tokenizer):
    (tmp_path / "r.jsonl").write_text('{"text": null}\n' * 300)
    assert estimate(mixture(Part(path=str(tmp_path / "r.jsonl")), tokens=5e9), tokenizer) is None
    hub = mixture(Part(hub=Hub(id="a/b")), tokens=5e9)
    assert sample_sources(hub, [])[0].estimate(hub.sources[0], lambda texts: []) == Estimate(5e9, believed=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"body": "x", "id": 1}\n', r"missing key 'text'; its keys are body, id; correct `render` and `where`"),
        (b'[{"text": "x"}]\n', "not a JSON object; every line has to be one JSON object in UTF-8"),
        ('{"text": "x"}\n'.encode("utf-16"), "bad UTF-8; every line has to be"),
    ],
)
def test_rows_of_another_schema_are_refused_before_any_work(tmp_path, tokenizer, content, message):
    (tmp_path / "r.jsonl").write_bytes(content * 50)
    chosen = mixture(Part(path=str(tmp_path / "r.jsonl")))
    with pytest.raises(
        InputError, match=r"source s: none of the \d+ rows looked at can be used; .*r\.jsonl: " + message
    ):
        prepare(chosen, tokenizer, 100, tmp_path / "out")
    assert not (tmp_path / ".out.work").exists()


def test_a_rough_estimate_warns_and_refuses_nothing(tmp_path):
    source = Source(name="s", weight=1.0, max_epochs=1.0, parts=(Part(path="x"),))
    budget = Budget(train=1000, valid=0, test=0, seq_length=8)
    assert len(expected_shortages([source], [budget], [Estimate(10.0, believed=False)])) == 1
    with pytest.raises(InputError, match="source s has about 10 tokens"):
        expected_shortages([source], [budget], [Estimate(10.0, believed=True)])
    assert expected_shortages([source], [budget], [None]) == []


@pytest.mark.parametrize("name", ["rows.arrow", "rows.jsonl.gz"])
def test_a_large_source_is_not_tokenized_whole(tmp_path, tokenizer, name):
    WRITERS[name](tmp_path / name)
    chosen = mixture(Part(path=str(tmp_path / name)))
    out = prepare(chosen, tokenizer, 20_000, tmp_path / "out", seq_length=32, valid_tokens=300)
    (report,) = read_report(out)["sources"]
    assert report["rows"] == len(DOCUMENTS)
    assert report["not_drawn"] > len(DOCUMENTS) // 2
    assert report["train"]["tokens"] >= 20_000


def test_a_hub_data_set_is_not_tokenized_whole(tmp_path, tokenizer, monkeypatch):
    """`datasets` gives arrow files, whatever the hub has."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    (tmp_path / "owner_name").mkdir()
    parquet.write_table(pa.Table.from_pylist(DOCUMENTS), tmp_path / "owner_name" / "train.parquet")
    chosen = mixture(Part(hub=Hub(id=str(tmp_path / "owner_name"))), tokens=1e12)
    units = plan_units(chosen)
    assert {unit.kind for unit in units} == {"arrow"}
    out = prepare(chosen, tokenizer, 20_000, tmp_path / "out", seq_length=32, valid_tokens=300)
    (report,) = read_report(out)["sources"]
    assert report["not_drawn"] > len(DOCUMENTS) // 2
    assert report["train"]["tokens"] >= 20_000
    limited = dataclasses.replace(chosen.sources[0], parts=(Part(path="x", max_documents=3),))
    assert first_bounds(mixture(*limited.parts), [Estimate(1e12, believed=True)], [None]) == [1 << 64]

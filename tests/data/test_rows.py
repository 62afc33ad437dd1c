"""Every file format gives the same rows; a damaged file is an error with its name, never an early end."""

import gzip
import json
import subprocess
import sys

import datasets
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from prism_nemo.data import rows as rows_module
from prism_nemo.data.files import plan_units
from prism_nemo.data.mixture import Mixture, Part, Source
from prism_nemo.data.rows import Bad, read_rows
from prism_nemo.errors import InputError

ROWS = [{"text": f"row {number} " + "é中\u2028" * (number % 7)} for number in range(1000)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def mixture(path) -> Mixture:
    return Mixture(name="m", sources=(Source(name="s", weight=1.0, parts=(Part(path=str(path)),)),))


def rows_of(path, unit_bytes: int = 1 << 26) -> list:
    units = plan_units(mixture(path), unit_bytes)
    return [row.content for unit in units for row in read_rows(unit, ("text",), lambda name, position: True)]


def arrow(path, file: bool) -> None:
    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(path, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=300):
            writer.write_batch(batch)


WRITERS = {
    "rows.jsonl": lambda path: path.write_bytes(LINES),
    "no_last_break.jsonl": lambda path: path.write_bytes(LINES[:-1]),
    "windows.jsonl": lambda path: path.write_bytes(LINES.replace(b"\n", b"\r\n")),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES[:5000]) + gzip.compress(LINES[5000:])),
    "rows.jsonl.zst": lambda path: path.write_bytes(
        zstandard.compress(LINES[:5000]) + zstandard.ZstdCompressor(write_checksum=True).compress(LINES[5000:])
    ),
    "rows.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=130),
    "file.arrow": lambda path: arrow(path, True),
    "stream.arrow": lambda path: arrow(path, False),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("unit_bytes", [7, 999, 1 << 26])
def test_every_format_gives_every_row_once_and_in_order(tmp_path, name, unit_bytes):
    WRITERS[name](tmp_path / name)
    assert rows_of(tmp_path / name, unit_bytes) == ROWS


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.endswith(".jsonl")])
def test_a_truncated_file_is_named(tmp_path, name):
    WRITERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InputError, match=name):
        rows_of(tmp_path / name)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst"])
def test_a_damaged_byte_is_noticed(tmp_path, name):
    WRITERS[name](tmp_path / name)
    whole = bytearray((tmp_path / name).read_bytes())
    whole[-30] ^= 0xFF
    (tmp_path / name).write_bytes(whole)
    with pytest.raises(InputError, match="damaged"):
        rows_of(tmp_path / name)


@pytest.mark.parametrize("kind", ["jsonl", "gz", "zst"])
def test_a_line_over_the_limit_is_one_bad_row_among_good_ones(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(rows_module, "MAX_LINE", 200_000)
    raw = b'{"text": "before"}\n{"text": "' + b"long " * 50_000 + b'"}\n{"text": "after"}\n'
    packed = {"jsonl": lambda data: data, "gz": gzip.compress, "zst": zstandard.compress}[kind](raw)
    name = "r.jsonl" if kind == "jsonl" else f"r.jsonl.{kind}"
    (tmp_path / name).write_bytes(packed)
    first, bad, last = rows_of(tmp_path / name)
    assert (first, last) == ({"text": "before"}, {"text": "after"})
    assert isinstance(bad, Bad) and bad.reason == "line over the length limit" and len(bad.raw) <= rows_module.CHUNK


@given(st.lists(st.text("ab\n", max_size=6).map(str.encode), max_size=8))
def test_lines_are_those_of_the_whole_text_however_it_is_cut(pieces):
    whole = b"".join(pieces).split(b"\n")
    assert list(rows_module._lines(iter(pieces))) == [(line, True) for line in (whole if whole[-1] else whole[:-1])]


def test_only_wanted_rows_of_a_table_become_objects(tmp_path, monkeypatch):
    made = []
    contents = rows_module._contents
    monkeypatch.setattr(rows_module, "_contents", lambda batch: made.append(batch.num_rows) or contents(batch))
    for name in ("rows.parquet", "stream.arrow"):
        made.clear()
        WRITERS[name](tmp_path / name)
        rows = [
            row
            for unit in plan_units(mixture(tmp_path / name))
            for row in read_rows(unit, ("text",), lambda name, position: position % 100 == 7)
        ]
        assert len(rows) == len(ROWS)
        assert {row.position: row.content for row in rows if row} == {n: ROWS[n] for n in range(7, 1000, 100)}
        assert sum(made) == 10


def test_a_folder_of_plain_text_is_one_document_per_file(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.md").write_text("first\n")
    (tmp_path / "sub" / "c.py").write_bytes(b"\xff")
    (tmp_path / ".hidden").write_text("no")
    first, second, third = rows_of(tmp_path)
    assert (first, second) == ({"text": "first\n"}, {"text": "second"})
    assert isinstance(third, Bad) and third.reason == "bad UTF-8"


PEAK = """
import re, sys
from pathlib import Path
from prism_nemo.data.files import plan_units
from prism_nemo.data.mixture import Mixture, Part, Source
from prism_nemo.data.rows import read_rows

for path in sys.argv[1:]:
    mixture = Mixture(name="m", sources=(Source(name="s", weight=1.0, parts=(Part(path=path),)),))
    (unit,) = plan_units(mixture, 1 << 40)
    for row in read_rows(unit, ("text",), lambda name, position: True):
        pass
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_a_row_group(tmp_path):
    for name, count in (("small", 300), ("large", 9000)):
        table = pa.Table.from_pylist([{"text": f"{number:05}" * 2000} for number in range(count)])
        parquet.write_table(table, tmp_path / f"{name}.parquet", compression="none", use_dictionary=False)
    assert parquet.read_metadata(tmp_path / "large.parquet").num_row_groups == 1
    files = [str(tmp_path / f"{name}.parquet") for name in ("small", "large")]
    result = subprocess.run([sys.executable, "-c", PEAK, *files], capture_output=True, text=True, check=True)
    before, after = map(int, result.stdout.split())
    assert (after - before) * 1024 < (tmp_path / "large.parquet").stat().st_size / 2


def test_rows_that_are_not_wanted_are_counted_and_not_parsed(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(b"{broken\n" + LINES)
    (unit,) = plan_units(mixture(tmp_path / "r.jsonl"))
    rows = list(read_rows(unit, ("text",), lambda name, position: position > 5000))
    assert len(rows) == len(ROWS) + 1
    assert rows[0] is None and rows[-1].content == ROWS[-1]


def test_a_byte_order_mark_is_no_bad_row(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + LINES)
    assert rows_of(tmp_path / "r.jsonl") == ROWS


def test_a_text_file_over_the_limit_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_LINE", 1000)
    (tmp_path / "t.txt").write_text("x" * 1001)
    (bad,) = rows_of(tmp_path / "t.txt")
    assert isinstance(bad, Bad) and bad.reason == "file over the length limit"


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl.xz", "text.txt.gz", "Archive.ZIP"])
def test_a_table_or_archive_is_not_taken_for_plain_text(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_text("text\nhello\n")
    for path in (tmp_path / "folder" / name, tmp_path / "folder", tmp_path / "folder" / "*"):
        with pytest.raises(InputError, match=rf"{name} is of no known format; give \.arrow, .* or plain text"):
            plan_units(mixture(path))


def test_what_datasets_saves_beside_the_rows_is_not_read(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} == {".arrow", ".json"}
    assert rows_of(tmp_path / "saved") == ROWS


@pytest.mark.parametrize("name", ["rows.parquet", "stream.arrow"])
def test_a_missing_column_is_named_with_those_there_are(tmp_path, name):
    WRITERS[name](tmp_path / name)
    (unit,) = plan_units(mixture(tmp_path / name))
    with pytest.raises(InputError, match="no column 'body'; it has: text"):
        list(read_rows(unit, ("body",), lambda name, position: True))


def test_missing_data_is_said_before_anything_is_read(tmp_path):
    for path, message in (("none.jsonl", "does not exist"), ("*.parquet", "no file matches")):
        with pytest.raises(InputError, match=message):
            plan_units(mixture(tmp_path / path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        plan_units(mixture(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"source s needs a local path: ask them; give its path with --source"):
        plan_units(Mixture(name="m", sources=(Source(name="s", weight=1.0, parts=(Part(note="ask them"),)),)))

"""The generation store: keys, torn lines, killed and concurrent writers, sealing."""

import multiprocessing
import random
import subprocess
import sys
import time
from dataclasses import replace

import orjson
import pyarrow.parquet as pq
import pytest

from prism_nemo.errors import InputError
from prism_nemo.evaluation.sample import Sample
from prism_nemo.evaluation.store import GenerationStore


def sample(number, **changes):
    fields = {
        "model": "m",
        "task": "aime24@1",
        "question": f"q{number // 4}",
        "prompt": "p",
        "protocol": "x",
        "seed": 0,
        "index": number % 4,
        "text": f"text {number} with \u2028 and \n",
        "tokens": number,
        "finish": "stop",
        "nll": 0.25,
        "seconds": 0.1,
        "backend": "test",
    }
    return Sample(**(fields | changes))


def same(left, right):
    return sorted(left, key=lambda s: s.digest) == sorted(right, key=lambda s: s.digest)


def test_what_goes_in_comes_out_from_log_segment_and_another_process(tmp_path):
    samples = [sample(i) for i in range(40)]
    with GenerationStore(tmp_path / "s") as store:
        assert store.append(samples) == 40
        assert store.append(samples) == 0
        assert store.get(samples[7]) == samples[7]
        assert same(store.samples(), samples)
        other = GenerationStore(tmp_path / "s")
        assert same(other.samples(), samples)
    assert not list((tmp_path / "s/logs").glob("*.jsonl"))
    assert other.get(samples[7]) == samples[7]
    assert same(GenerationStore(tmp_path / "s").samples(question="q3"), samples[12:16])
    assert store.append([sample(40)]) == 1
    assert len(store) == 41


@pytest.mark.parametrize(
    "change", [{"model": "n"}, {"task": "aime24@2"}, {"prompt": "r"}, {"protocol": "y"}, {"seed": 1}, {"index": 9}]
)
def test_any_change_of_the_question_is_another_key(tmp_path, change):
    with GenerationStore(tmp_path / "s") as store:
        store.append([sample(1)])
        assert store.missing([replace(sample(1), **change)])
        assert not store.missing([replace(sample(1), text="other", tokens=5)])


def test_unknown_nll_is_nan_in_logs_and_segments(tmp_path):
    with GenerationStore(tmp_path / "s") as store:
        store.append([sample(1, nll=float("nan"))])
        assert store.get(sample(1)).nll != store.get(sample(1)).nll
        store.close()
        assert store.get(sample(1)).nll != store.get(sample(1)).nll


def test_every_cut_of_the_last_line_loses_only_that_line(tmp_path):
    lines = [sample(i).to_line() for i in range(3)]
    whole = b"".join(lines)
    for cut in range(len(lines[0]) + len(lines[1]), len(whole), 9):
        folder = tmp_path / str(cut)
        GenerationStore(folder)
        (folder / "logs" / "elsewhere-1-x.jsonl").write_bytes(whole[:cut])
        store = GenerationStore(folder)
        assert len(store) == 2
        assert store.missing([sample(2)])
        store.append([sample(2)])
        store.close()
        assert same(GenerationStore(folder).samples(), [sample(i) for i in range(3)])


def test_lost_blocks_in_the_middle_are_counted(tmp_path):
    GenerationStore(tmp_path / "s")
    log = tmp_path / "s/logs/elsewhere-1-x.jsonl"
    log.write_bytes(sample(0).to_line() + b"\0" * 100 + b"\n" + sample(1).to_line())
    store = GenerationStore(tmp_path / "s")
    assert (len(store), store.unreadable_lines) == (2, 1)
    assert store.get(sample(1)) == sample(1)


def test_a_sealer_that_died_midway_leaves_nothing_twice(tmp_path):
    store = GenerationStore(tmp_path / "s")
    store.append([sample(i) for i in range(8)])
    (log,) = (tmp_path / "s/logs").glob("*.jsonl")
    kept = log.read_bytes()
    store.close()
    log.write_bytes(kept)  # segment written, log not yet removed
    again = GenerationStore(tmp_path / "s")
    assert same(again.samples(), [sample(i) for i in range(8)])
    assert not log.exists()


def test_a_reader_finds_what_was_sealed_under_its_hands(tmp_path):
    writer = GenerationStore(tmp_path / "s")
    writer.append([sample(1)])
    reader = GenerationStore(tmp_path / "s")
    writer.close()
    assert reader.get(sample(1)) == sample(1)


def test_logs_of_other_hosts_are_read_and_left_alone(tmp_path, monkeypatch):
    """Their locks are not seen everywhere, so only this host's own are sealed, not those of a longer name."""
    monkeypatch.setattr("socket.gethostname", lambda: "node-1")
    GenerationStore(tmp_path / "s")
    for i, host in enumerate(("node-1", "node-1-2", "node-10")):
        (tmp_path / f"s/logs/{host}-77-x{i}.jsonl").write_bytes(sample(i).to_line())
    assert len(GenerationStore(tmp_path / "s")) == 3
    assert {path.name for path in (tmp_path / "s/logs").iterdir()} == {"node-1-2-77-x1.jsonl", "node-10-77-x2.jsonl"}


def test_a_living_writers_log_is_left_alone(tmp_path):
    writer = GenerationStore(tmp_path / "s")
    writer.append([sample(1)])
    GenerationStore(tmp_path / "s")
    writer.append([sample(2)])
    assert same(GenerationStore(tmp_path / "s").samples(), [sample(1), sample(2)])


def test_segments_open_with_ordinary_tools(tmp_path):
    for i in range(3):
        with GenerationStore(tmp_path / "s") as store:
            store.append([sample(i)])
    table = pq.read_table(tmp_path / "s/segments")
    assert sorted(table["tokens"].to_pylist()) == [0, 1, 2]


def test_facts_are_kept_readable(tmp_path):
    store = GenerationStore(tmp_path / "s")
    store.describe("models", "abc", {"name": "base"})
    assert store.described("models") == {"abc": {"name": "base"}}
    assert orjson.loads((tmp_path / "s/models/abc.json").read_bytes()) == {"name": "base"}


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="no generation store"):
        GenerationStore(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s/store.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99"):
        GenerationStore(tmp_path / "s")


def _write(folder, start, stop):
    with GenerationStore(folder) as store:
        for i in range(start, stop):
            store.append([sample(i)])


def test_concurrent_writers_with_overlapping_work(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write, args=(tmp_path / "s", i * 50, i * 50 + 100)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert same(GenerationStore(tmp_path / "s").samples(), [sample(i) for i in range(250)])


WRITER = """
import os, sys
from prism_nemo.evaluation import store as s
from prism_nemo.evaluation.sample import Sample

s.SEAL_BYTES = 3000
fields = dict(model="m", task="t@1", question="q", prompt="p", protocol="x", seed=0, text="text", tokens=3)
fields |= dict(finish="stop", nll=0.5, seconds=0.1, backend="test")
os.write(1, b"begun\\n")
store = s.GenerationStore(sys.argv[1])
os.write(1, b"ready\\n")
for i in range(int(sys.argv[2])):
    if store.missing([sample := Sample(index=i, **fields)]):
        store.append([sample])
        os.write(1, b"%d\\n" % i)
store.close()
"""


@pytest.mark.slow
def test_fifty_kills_lose_and_double_nothing(tmp_path):
    """Every sample whose append returned is there after kill -9; in the end each of them is there once.

    Every other process is killed while it writes and seals, the others already while they seal what those left.
    """
    rng, acknowledged, total = random.Random(0), set(), 20_000
    command = [sys.executable, "-c", WRITER, str(tmp_path / "s"), str(total)]
    for number in range(50):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "begun\n"
        if number % 2 == 0:
            assert process.stdout.readline() == "ready\n"
        time.sleep(rng.random() * 0.05)
        process.kill()
        acknowledged |= {int(line) for line in process.stdout.read().splitlines() if line != "ready"}
        process.wait()
    assert 100 < len(acknowledged) < total
    there = {sample.index for sample in GenerationStore(tmp_path / "s").samples()}
    assert acknowledged <= there
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert sorted(sample.index for sample in GenerationStore(tmp_path / "s").samples()) == list(range(total))
    rows = sum(pq.ParquetFile(path).metadata.num_rows for path in (tmp_path / "s/segments").glob("*.parquet"))
    assert rows == total

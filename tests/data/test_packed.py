"""`prism data pack`: fill rate, the command, a killed run goes on, mistakes are named."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from prism_nemo.cli.data import app
from prism_nemo.data.blend import read_report, source_prefixes
from prism_nemo.data.indexed import documents
from prism_nemo.data.packed import pack_blend
from prism_nemo.data.prepare import prepare
from prism_nemo.data.verify import verify_blend
from prism_nemo.errors import InputError, PrismError
from tests.data.test_prepare import content

SEQUENCE = 32


@pytest.fixture
def prepared(tmp_path, three_sources, tokenizer) -> Path:
    """Documents of 6 to some 600 tokens: about a tenth is longer than three sequences."""
    mixture = three_sources((500, 300, 60))
    return prepare(mixture, tokenizer, 20_000, tmp_path / "blend", seq_length=SEQUENCE, valid_tokens=900)


def test_fill_rate_is_the_share_of_tokens_that_are_not_filling(tmp_path, prepared):
    out = pack_blend(prepared, tmp_path / "out", seq_length=SEQUENCE)
    for name, prefix in source_prefixes(out, "train").items():
        packed = next(source for source in read_report(out)["sources"] if source["name"] == name)["packed"]["train"]
        rows = np.stack(list(documents(prefix)))
        after_end = (rows == 0) & (np.roll(rows, 1, axis=1) == 0)  # the end token is 0 and no text holds it
        after_end[:, 0] = False
        assert after_end.sum() == packed["tokens_filled"]
        assert packed["fill_rate"] == 1 - after_end.sum() / rows.size


def test_the_command_packs_shows_and_verifies(tmp_path, prepared):
    out = tmp_path / "out"
    arguments = ["pack", str(prepared), "--out", str(out), "--seq-length", "64", "--overlap", "8", "--minimum", "20"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "packed into sequences of 64 tokens" in result.output
    report = json.loads(CliRunner().invoke(app, ["show", str(out), "--json"]).output)
    a = report["sources"][0]["packed"]["train"]
    assert a["documents_too_short"] > 0
    assert a["documents_cut"] > 0
    assert a["tokens_repeated"] == 8 * (a["chunks"] - a["documents"] + a["documents_too_short"])
    assert verify_blend(out) == []
    before = (out / "artifact.json").read_bytes()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (out / "artifact.json").read_bytes() == before, "what is there already is not made again"


def killed(blend: Path, out: Path, at: int) -> None:
    calls = iter(range(10**9))

    def die(_: object) -> None:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    pack_blend(blend, out, seq_length=SEQUENCE, on_progress=die)


@pytest.mark.parametrize(("at", "saved"), [(3, 0), (700, 500)])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, prepared, at, saved):
    process = multiprocessing.get_context("fork").Process(target=killed, args=(prepared, tmp_path / "out", at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    newest = max((tmp_path / ".out.partial").rglob("*.bin"), key=lambda path: path.stat().st_mtime_ns)
    with open(newest, "ab") as file:
        file.write(b"torn")
    calls: list[object] = []
    whole = pack_blend(prepared, tmp_path / "whole", seq_length=SEQUENCE, on_progress=calls.append)
    rest: list[object] = []
    again = pack_blend(prepared, tmp_path / "out", seq_length=SEQUENCE, on_progress=rest.append)
    assert len(rest) <= len(calls) - saved
    assert content(again) == content(whole)


def test_mistakes_are_named_before_any_work(tmp_path, prepared):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="overlap 31 must be"):
        pack_blend(prepared, out, seq_length=SEQUENCE, overlap=31)
    with pytest.raises(InputError, match=r"source a: all \d+ documents are shorter than the minimum"):
        pack_blend(prepared, out, seq_length=SEQUENCE, minimum=10**6)
    with pytest.raises(InputError, match="no prepared data set"):
        pack_blend(tmp_path, out, seq_length=SEQUENCE)
    packed = pack_blend(prepared, out, seq_length=SEQUENCE)
    with pytest.raises(InputError, match="is packed already"):
        pack_blend(packed, tmp_path / "twice", seq_length=SEQUENCE)


def test_a_full_disk_says_so_and_the_next_run_goes_on(tmp_path, prepared, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prism_nemo.data.pack.write_index", full)
    with pytest.raises(PrismError, match="no space left"):
        pack_blend(prepared, tmp_path / "out", seq_length=SEQUENCE)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert verify_blend(pack_blend(prepared, tmp_path / "out", seq_length=SEQUENCE)) == []

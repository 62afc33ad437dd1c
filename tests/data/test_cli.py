"""`prism data`: the commands, their exit codes and their one-line errors."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from prism_nemo.cli.data import _number, app
from prism_nemo.errors import InputError, PrismError

runner = CliRunner()


@pytest.fixture
def prepared(tmp_path, three_sources, tokenizer):
    three_sources(a=[b"{bad"])
    arguments = ["prepare", str(tmp_path / "mixture.yaml"), "--tokenizer", str(tokenizer), "--tokens", "3k"]
    arguments += ["--seq-length", "32", "--valid-tokens", "300", "--out", str(tmp_path / "out"), "--workers", "1"]
    return [*arguments, "--max-bad-fraction", "0.1"]


def test_prepare_show_and_verify(tmp_path, prepared):
    result = runner.invoke(app, prepared)
    assert result.exit_code == 0, result.output
    assert "1 rows in quarantine/: broken JSON" in result.output
    assert "encoder gigatoken (ids equal to tokenizers)" in result.output
    out = str(tmp_path / "out")
    report = json.loads(runner.invoke(app, ["show", out, "--json"]).output)
    assert [source["share_asked"] for source in report["sources"]] == [0.5, 0.3, 0.2]
    blend = json.loads(runner.invoke(app, ["show", out, "--blend"]).output)
    assert list(blend) == ["train", "valid", "test"]
    assert blend["train"][:2] == [0.5, f"{out}/train/a"]
    tree = runner.invoke(app, ["show", out, "--files"]).output
    assert f"a/a.jsonl: {(tmp_path / 'a.jsonl').stat().st_size:,} bytes, xxh3_128" in tree
    assert "every file as it was written" in runner.invoke(app, ["verify", out]).output


def test_verify_finds_a_changed_byte_and_a_wrong_end(tmp_path, prepared):
    runner.invoke(app, prepared)
    path = tmp_path / "out" / "train" / "a.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    error = runner.invoke(app, ["verify", str(tmp_path / "out")]).exception
    assert isinstance(error, PrismError)
    assert "changed: train/a.bin" in str(error)


def test_shards_then_the_whole(tmp_path, prepared):
    for shard in ("0/2", "1/2"):
        result = runner.invoke(app, [*prepared, "--shard", shard])
        assert f"shard {shard} done" in result.output
        assert not (tmp_path / "out").exists()
    assert runner.invoke(app, prepared).exit_code == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--tokens", "lots"], "'lots' is no number of tokens"),
        (["--shard", "2/2"], "the first number counts from 0"),
        (["--shard", "half"], "expected I/N"),
        (["--source", "a"], "expected NAME=PATH"),
        (["--source", "d=x"], "has no source 'd'"),
        (["--encoder", "mine"], "no encoder 'mine'"),
        (["--strict"], r"a.jsonl: line 121 (source a): broken JSON"),
        (["--max-epochs", "0.001"], "max_epochs is 0.001"),
        (["--max-epochs", "0"], "max_epochs 0.0 must be above 0"),
        (["--tokens", "inf"], "'inf' is no number of tokens"),
    ],
)
def test_wrong_usage_is_one_line(prepared, extra, message):
    error = runner.invoke(app, [*prepared, *extra]).exception
    assert isinstance(error, InputError)
    assert message in str(error)
    assert "\n" not in str(error)


def test_numbers_of_tokens():
    assert [_number(text) for text in ("26.2B", "500M", "3k", "17")] == [26_200_000_000, 500_000_000, 3000, 17]


def test_the_program_exits_with_2_and_prints_no_traceback(tmp_path, tokenizer):
    command = [
        sys.executable,
        "-m",
        "prism_nemo.cli.main",
        "data",
        "prepare",
        "math_cod",
        "--tokenizer",
        str(tokenizer),
    ]
    result = subprocess.run([*command, "--tokens", "1M", "--out", str(tmp_path / "o")], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: no mixture 'math_cod' (did you mean 'math_code'?)")
    assert len(result.stderr.splitlines()) == 1

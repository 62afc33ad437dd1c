"""The commands on pico checkpoints: artifacts whole, `--json` read by a program, errors in one line."""

import json

import pytest
import torch
from typer.testing import CliRunner

from prism_nemo.artifacts import read_manifest, verify
from prism_nemo.cli.analyze import app
from prism_nemo.errors import InputError
from prism_nemo.models.pico import make_pico

from .conftest import moved

SIZES = {"hidden": 32, "layers": 2, "heads": 4, "ffn": 48}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """base, mt and rl of a pico Llama that reads single characters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("three")
    words = ["<eos>", "\n", *(chr(code) for code in range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    fast.save_pretrained(root / "tokenizer")
    options = {"vocab_size": 97, "dtype": "bfloat16", "tokenizer_dir": root / "tokenizer", **SIZES}
    folders = [make_pico("llama_3_1_8b", root / "base", **options)]
    for name, size in (("mt", 0.2), ("rl", 0.003)):
        folders.append(moved(root / name, folders[-1], size, seed=len(folders)))
        fast.save_pretrained(folders[-1])
    texts = [{"text": f"{k} plus {k} is {2 * k}"} for k in range(12)]
    (root / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    problem = {"domain": "math", "source": "test", "licence": "CC0-1.0"}
    problems = [{"id": f"q{k}", "prompt": f"{k}+1=", "answer": str(k + 1), **problem} for k in range(2)]
    (root / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    return root


def call(*words: object) -> dict:
    result = CliRunner().invoke(app, [str(word) for word in words] + ["--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def points(root):
    return [root / name for name in ("base", "mt", "rl")]


def test_weights(three, tmp_path):
    report = call("weights", *points(three), "--out", tmp_path / "w", "--paper", "granite-3.3-8b")
    totals = {row["transition"]: row for row in report["changes"] if row["scope"] == "total"}
    assert totals["base -> mt"]["l2"] == pytest.approx(0.2, rel=0.05)
    table = {(row["table"], row["stage"], row["benchmark"]): row for row in report["paper"]}
    row = table["Table 22", "mt_to_rl", "unchanged_1pct"]
    assert row["paper"] == 95.0
    assert row["ours_element_weighted"] == pytest.approx(100 * totals["mt -> rl"]["unchanged"]["1"])
    assert ("Table 23", "base_to_mt", "changed_1pct_attn_q") in table
    assert "base_to_rl" not in {row["stage"] for row in report["paper"]}  # the paper's is RL on the base itself
    assert read_manifest(tmp_path / "w").kind == "analysis"
    assert not verify(tmp_path / "w")
    section = (tmp_path / "w" / "section.html").read_text()
    assert section.count("<svg") == 4
    before = (tmp_path / "w" / "artifact.json").stat().st_mtime_ns
    call("weights", *points(three), "--out", tmp_path / "w", "--paper", "granite-3.3-8b")
    assert (tmp_path / "w" / "artifact.json").stat().st_mtime_ns == before  # up to date
    with pytest.raises(InputError, match="made differently"):
        call("weights", *points(three)[:2], "--out", tmp_path / "w")
    with pytest.raises(InputError, match="3 different names are needed"):
        call("weights", *points(three), "--labels", "a,b", "--out", tmp_path / "x")


def test_cka(three, tmp_path):
    words = ("--inputs", three / "texts.jsonl", "--count", 12)
    report = call("cka", *points(three), *words, "--out", tmp_path / "c", "--paper", "llama-3.1-8b")
    pairs = {tuple(item["pair"]): item for item in report["comparisons"]}
    assert pairs["mt", "rl"]["minimum"][1] > pairs["base", "mt"]["minimum"][1]
    assert len(pairs["base", "mt"]["curve"]["value"]) == SIZES["layers"] + 1
    assert pairs["base", "mt"]["curve"]["resample_size"] == 6
    columns = (tmp_path / "c" / "tables" / "curves.csv").read_text().splitlines()[0]
    assert columns == '"pair","state","cka","resample_mean","resample_std"'
    assert {row["benchmark"] for row in report["paper"]} >= {"cka_min_gsm8k", "cka_min_c4"}
    with pytest.raises(InputError, match="has 12 inputs, asked for are 200"):
        call("cka", *points(three), "--inputs", three / "texts.jsonl", "--out", tmp_path / "d")


def test_cka_names_what_is_missing_before_work(three, tmp_path):
    folders, words = points(three), ("--inputs", three / "texts.jsonl", "--count", 12, "--out", tmp_path / "c")
    with pytest.raises(InputError, match="nowhere"):
        call("cka", folders[0], tmp_path / "nowhere", *words)
    with pytest.raises(InputError, match="no such file"):
        call("cka", *folders, "--inputs", tmp_path / "nowhere.jsonl", "--out", tmp_path / "c")
    silent = moved(tmp_path / "silent", folders[0], 0.1, seed=5)
    with pytest.raises(InputError, match="silent has no tokenizer"):
        call("cka", silent, folders[1], *words)
    assert not list(tmp_path.glob(".c.activations/*.npy"))


def test_landscape_and_behaviour_through_one_store(three, tmp_path):
    asked = ("--problems", three / "problems.jsonl", "-k", 1)
    words = (*asked, "--store", tmp_path / "store", "--max-new-tokens", 3, "--no-grid", "--out", tmp_path / "l")
    report = call("landscape", *points(three), *words)
    assert len(report["points"]) == 11
    assert all(point["rate"]["samples"] == 2 for point in report["points"])
    found = call("behaviour", tmp_path / "store", *asked, "--out", tmp_path / "b")
    rows = {row["name"]: row for row in found["rows"]}
    assert {"base", "mt", "rl"} <= set(rows)  # the corners are the checkpoints themselves
    assert len(rows) == 11
    assert rows["base"]["nll"]["value"] > 0
    assert not list(tmp_path.glob(".l.points/*.model"))


def test_trajectory(three, tmp_path):
    for step in (10, 20):
        moved(tmp_path / "run" / f"checkpoint-{step}", three / "mt", 0.001 * step, seed=step)
    report = call("trajectory", tmp_path / "run", "--start", three / "mt", "--out", tmp_path / "t")
    whole = [row["l2"] for row in report["rows"] if row["scope"] == "total"]
    assert whole == pytest.approx([0.01, 0.02], rel=0.2)
    assert torch.tensor(whole).isfinite().all()


def test_nothing_to_measure_is_said(three, tmp_path):
    asked = ("--problems", three / "problems.jsonl", "--out", tmp_path / "x")
    with pytest.raises(InputError, match="neither the path nor the grid"):
        call("landscape", *points(three), *asked, "--no-path", "--no-grid")
    with pytest.raises(InputError, match="nowhere is not there; give the folder of a generation store"):
        call("behaviour", tmp_path / "nowhere", *asked)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(InputError, match="two --model have the same name"):
        call("behaviour", tmp_path, *asked, "--model", f"a={three}", "--model", f"a={three}")
    with pytest.raises(InputError, match="do not cover 'gpt-2'"):
        call("weights", *points(three), "--out", tmp_path / "x", "--paper", "gpt-2")
    assert not (tmp_path / "x").exists()

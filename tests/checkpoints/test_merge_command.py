"""`prism merge` as a user meets it: what it says of models that do not fit, and what a kill or a full disk leaves."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from prism_nemo.artifacts import verify
from prism_nemo.checkpoints import merge as merging
from prism_nemo.checkpoints.merge import parse_weights
from prism_nemo.checkpoints.merged import merge
from prism_nemo.cli.main import app
from prism_nemo.errors import InputError, PrismError
from tests.checkpoints.test_merge import load, save

ONES = torch.ones(4, 2, dtype=torch.bfloat16)
EMBEDDING = "model.embed_tokens.weight"
WHOLE = {EMBEDDING: ONES, "x": ONES}


def vocabulary(folder: Path, words: str, **added: int) -> None:
    added_tokens = [{"content": word, "id": place} for word, place in added.items()]
    model = {"vocab": {word: place for place, word in enumerate(words)}}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added_tokens}))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = save(tmp_path / "base", WHOLE)
    vocabulary(folder, "ab", end=2)
    return folder


def prism_merge(*arguments: object) -> str:
    return CliRunner().invoke(app, ["merge", *map(str, arguments)], catch_exceptions=False).output


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({**WHOLE, "x": ONES[:, :1]}, ["0.85"], r"^x has another shape in \S+other\S+ \[4, 1\] than in \S+base"),
        ({EMBEDDING: ONES, "y": ONES}, ["0.85"], r"other lacks x; only models of one architecture merge"),
        ({**WHOLE, "y": ONES}, ["0.85"], r"base lacks y; only"),
        ({**WHOLE, "x": ONES.float()}, ["0.85"], r"^x is F32 in \S+other\S+ and BF16 in \S+base\S+; --dtype BF16 says"),
        ({**WHOLE, EMBEDDING: ONES[:3]}, ["0.85"], r"embed_tokens\.weight has another vocabulary in \S+other"),
        ({**WHOLE, "x": ONES * torch.nan}, ["0.85"], r"^x in \S+other\S+ holds inf or NaN; .* repair that model"),
        (WHOLE, ["0.5", "--weight", "0.6"], r"^weights 0\.5, 0\.6 sum to 1\.1; --any-sum if that is meant"),
        (WHOLE, ["mlp=0.9"], r"embed_tokens\.weight \(embedding\) has no weight; add --weight NUMBER"),
        (WHOLE, ["0.85", "--dtype", "bf16"], r"--dtype bf16: one of BF16, F16, F32"),
    ],
    ids=["shape", "name", "more", "dtype", "vocabulary", "nan", "sum", "left out", "unknown dtype"],
)
def test_models_that_do_not_fit_are_named_and_nothing_is_left(tensors, options, message, base, tmp_path):
    other = save(tmp_path / "other", tensors)
    with pytest.raises(InputError, match=message) as caught:
        prism_merge(base, other, "--weight", *options, "--out", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "other"]


@pytest.mark.parametrize(
    ("words", "added", "message"),
    [
        ("ba", {"end": 2}, "vocabularies differ: 'a' is 0 in .*base and 1 in .*other"),
        ("ab", {"stop": 2}, "vocabularies differ: 'end' is 2 in .*base and missing in .*other"),
        ("abc", {"end": 2}, "vocabularies differ: 'c' is missing in .*base and 2 in .*other"),
    ],
)
def test_tokenizers_that_differ_are_refused(words, added, message, base, tmp_path):
    other = save(tmp_path / "other", WHOLE)
    vocabulary(other, words, **added)
    with pytest.raises(InputError, match=message):
        prism_merge(base, other, "--weight", "0.85", "--out", tmp_path / "out")


def test_a_model_is_not_replaced_by_the_merge(base, tmp_path):
    made = tmp_path / "made"
    prism_merge(base, base, "--weight", "0.85", "--out", made)
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    for out in (base, made):
        with pytest.raises(InputError, match="choose another --out"):
            prism_merge(base, made, "--weight", "0.5", "--out", out, "--force")
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before


def wide(folder: Path, seed: int) -> Path:
    """A model of many steps of the sum, in several files."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"t{k}": torch.randn(merging.STEP + 1, generator=generator).bfloat16() for k in range(8)}
    return save(folder, tensors, shard=3 * merging.STEP)


def killed(models: list[Path], out: Path, at: int) -> None:
    write, calls = merging.write_elements, iter(range(10**6))

    def die(*arguments: object) -> None:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*arguments)

    merging.write_elements = die
    merge(models, out, parse_weights(["0.85"]), threads=1)


@pytest.mark.parametrize("at", [0, 3, 7])
def test_a_killed_merge_leaves_nothing_that_looks_whole(tmp_path, at):
    models = [wide(tmp_path / name, seed) for seed, name in enumerate("ab")]
    process = multiprocessing.get_context("fork").Process(target=killed, args=(models, tmp_path / "out", at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial" / "artifact.json").exists()
    for name in ("out", "whole"):
        merge(models, tmp_path / name, parse_weights(["0.85"]))
    assert verify(tmp_path / "out") == []
    again, whole = load(tmp_path / "out"), load(tmp_path / "whole")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in again.items())
    assert not (tmp_path / ".out.partial").exists()


def test_a_full_disk_is_one_line_and_no_draft(base, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "write_elements", full)
    with pytest.raises(PrismError, match=r"^no space left for .*out; free some and run the same command again$"):
        prism_merge(base, base, "--weight", "0.85", "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]

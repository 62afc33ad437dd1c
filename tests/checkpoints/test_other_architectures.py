"""An architecture that Megatron-Bridge knows and we say nothing of, by its hub id."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from typer.testing import CliRunner

from prism_nemo.checkpoints.exporting import export_hf
from prism_nemo.checkpoints.hub import model_folder
from prism_nemo.checkpoints.importing import import_hf
from prism_nemo.cli.main import app
from prism_nemo.errors import InputError

SIZES = {"vocab_size": 511, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on a machine without network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.slow
def test_qwen3_by_hub_id_there_and_back(cache: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    repository = cache / "models--somebody--pico-qwen3"
    model = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES, tie_word_embeddings=True), dtype=torch.float32)
    model.save_pretrained(repository / "snapshots" / "a1b2c3")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a1b2c3")
    done = CliRunner().invoke(app, ["convert", "import", "somebody/pico-qwen3", "--out", str(tmp_path / "megatron")])
    assert done.exit_code == 0, done.output
    out = export_hf(tmp_path / "megatron", tmp_path / "out")
    proof = json.loads((out / "proof.json").read_text())
    assert (proof["level"], proof["round_trip"]) == ("full", "bit-equal")
    assert proof["runs"]["fp32"]["logits_max"] <= 1e-5
    before, after = (load_file(f / "model.safetensors") for f in (repository / "snapshots" / "a1b2c3", out))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_layers_that_plain_torch_does_not_have_are_refused(tmp_path: Path) -> None:
    """Gemma 2 has norms behind its sublayers: without them it would be another model."""
    from transformers import AutoModelForCausalLM, Gemma2Config

    AutoModelForCausalLM.from_config(Gemma2Config(**SIZES, query_pre_attn_scalar=16)).save_pretrained(tmp_path / "hf")
    with pytest.raises(InputError, match="the model uses layers of its own kind, which needs a GPU"):
        import_hf(tmp_path / "hf", tmp_path / "megatron")


def test_pickles_are_fetched_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left_out: list[list[str]] = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, ignore_patterns: left_out.append(ignore_patterns) or str(tmp_path),
    )
    model_folder("somebody/model")
    model_folder("somebody/model", allow_pickle=True)
    assert ["*.bin" in patterns for patterns in left_out] == [True, False]


def test_what_is_neither_directory_nor_on_the_hub(cache: Path, tmp_path: Path) -> None:
    assert model_folder(tmp_path) == tmp_path
    with pytest.raises(InputError, match=r"somebody/nothing is no directory here and cannot be had from the hub"):
        model_folder("somebody/nothing")
    for name in ("./somebody/model", "/no/where", "model"):
        with pytest.raises(InputError, match="is not a directory; give a Hugging Face model directory or a hub id"):
            model_folder(name)

"""Changed positions: what config.json says is what transformers and Megatron both compute."""

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig

from prism_nemo.engine.positions import left_out
from prism_nemo.errors import InputError
from prism_nemo.models.facts import BASES, base_model, base_shape
from prism_nemo.models.pico import make_pico
from prism_nemo.models.rope import rope_changes

NONE = {"base": None, "scaling": None, "factor": 4.0}


def test_nothing_changes_for_a_model_made_for_the_length() -> None:
    assert rope_changes(base_model("llama_3_1_8b").config, length=131_072, **NONE) == {}


def test_a_shorter_model_is_told_the_new_length() -> None:
    assert rope_changes(base_model("mistral_7b").config, length=131_072, **NONE) == {"max_position_embeddings": 131_072}


def test_scaling_counts_from_the_length_the_model_has() -> None:
    found = rope_changes(base_model("mistral_7b").config, length=131_072, base=None, scaling="yarn", factor=4.0)
    assert found["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32_768,
    }
    assert found["rope_theta"] == 10_000.0


@pytest.mark.parametrize("family", ["nemotron_h_8b", "granite_4_0_h_micro"])
def test_models_without_rotary_positions_refuse(family: str) -> None:
    with pytest.raises(InputError, match="no rotary positions"):
        rope_changes(base_model(family).config, length=131_072, base=1e6, scaling=None, factor=4.0)


def imported(tmp_path: Path, family: str, *, base: float, scaling: str) -> None:
    from prism_nemo.checkpoints.importing import import_hf

    make_pico(family, tmp_path / "hf", vocab_size=256, hidden=64, layers=2, heads=4, ffn=96, max_positions=64)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    changes = rope_changes(config, length=128, base=base, scaling=scaling, factor=2.0)
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | changes))
    import_hf(tmp_path / "hf", tmp_path / "megatron")


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["llama3", "yarn"])
@pytest.mark.parametrize("family", [name for name in BASES if base_shape(name).rope_theta])
def test_megatron_computes_the_changed_positions(family: str, scaling: str, tmp_path: Path) -> None:
    """The import's proof compares logits and gradients with transformers'."""
    imported(tmp_path, family, base=2e6, scaling=scaling)
    figures = json.loads((tmp_path / "megatron" / "proof.json").read_text())
    assert figures["runs"]["fp32"]["logits_max"] < 1e-4


def test_a_scaling_that_depends_on_the_sequence_is_refused() -> None:
    config = LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    with pytest.raises(InputError, match="rope_type 'dynamic' is not known here"):
        left_out(config)

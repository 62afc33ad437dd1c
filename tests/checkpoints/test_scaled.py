"""The proof of a large model on a small one: its own configuration is what is tried."""

import json

import pytest

from prism_nemo.checkpoints import scaled
from prism_nemo.checkpoints.importing import import_hf
from prism_nemo.checkpoints.scaled import level_for, prove_scaled
from prism_nemo.errors import InputError, PrismError
from prism_nemo.models.facts import base_model
from prism_nemo.models.pico import make_pico


@pytest.fixture
def configuration(tmp_path):
    """A directory with nothing but the full-size config.json of a base."""

    def make(name, **changes):
        (tmp_path / "config.json").write_text(json.dumps(base_model(name).config | changes))
        return tmp_path

    return make


@pytest.mark.slow
def test_a_full_size_configuration_is_proven_without_its_weights(configuration):
    runs = prove_scaled(configuration("granite_4_0_h_micro"))
    assert runs["fp32"]["logits_max"] <= 1e-5
    assert runs["fp32"]["gradient_relative"] <= 1e-3
    assert runs["bf16"]["kl_mean"] <= 1e-3
    assert min(runs["lengths"]) < runs["chunk"] < max(runs["lengths"])


@pytest.mark.slow
def test_what_the_two_libraries_read_differently_is_refused_before_anything_is_written(tmp_path):
    """Megatron has no limits of the time step; transformers clamps to them."""
    hf = make_pico("nemotron_h_8b", tmp_path / "hf", vocab_size=301, hidden=32, heads=4, ffn=48, chunk=32)
    config = json.loads((hf / "config.json").read_text()) | {"time_step_limit": [0.5, 1.0]}
    (hf / "config.json").write_text(json.dumps(config))
    with pytest.raises(PrismError, match=r"a small model with the config\.json of .*: logits differ"):
        import_hf(hf, tmp_path / "out", proof="scaled")
    assert not (tmp_path / "out").exists()


def test_an_architecture_that_cannot_be_made_small(configuration):
    folder = configuration("llama_3_1_8b", model_type="gemma2")
    with pytest.raises(InputError, match="model_type 'gemma2' cannot be made small"):
        prove_scaled(folder)


@pytest.mark.parametrize(("changes", "parameters", "level"), [({}, 1000, "full"), ({}, 1 << 29, "scaled"),
                                                              ({"model_type": "qwen3"}, 1 << 29, "keys")])  # fmt: skip
def test_the_level_follows_size_and_architecture(configuration, changes, parameters, level, monkeypatch):
    monkeypatch.setattr(scaled, "has_gpu", lambda: False)
    folder = configuration("llama_3_1_8b", **changes)
    assert level_for("auto", parameters, folder) == level
    assert level_for("keys", parameters, folder) == "keys"
    monkeypatch.setattr(scaled, "has_gpu", lambda: True)
    assert level_for("auto", parameters, folder) == ("full" if level == "full" else "keys")

"""The way back from NeMo-RL: both backends' files, overrides that must not be lost, what is not the model's."""

import json
import shutil

import pytest
import torch
import yaml
from pico import make_model
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from prism_nemo.cli.rl import app
from prism_nemo.errors import InputError, PrismError
from prism_nemo.rl.nemo_rl.export import export_run, export_step

SIZES = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64}
SHARD = "model-00001-of-00001.safetensors"
ROPE = {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "max_position_embeddings": 4096}


@pytest.fixture(scope="module")
def start(tokenizer, tmp_path_factory):
    folder, vocab = tokenizer
    return make_model("llama_3_1_8b", tmp_path_factory.mktemp("models") / "start", folder, vocab, **SIZES)


def write(tensors, folder):
    save_file(tensors, folder / SHARD, metadata={"format": "pt"})
    size = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(tensors, SHARD)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def trained(start, step, *, overrides=None, change=0.01, dtype=torch.float32):
    """What the DTensor backend leaves behind with save_consolidated: transformers' own directory of new weights."""
    folder = step / "policy/weights/model/consolidated"
    folder.mkdir(parents=True)
    tensors = load_file(start / "model.safetensors")
    noise = torch.Generator().manual_seed(1)
    tensors = {
        name: (value + change * torch.randn(value.shape, generator=noise)).to(dtype) for name, value in tensors.items()
    }
    write(tensors, folder)
    config = json.loads((start / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **(overrides or {}), "use_cache": True}))
    policy = {"model_name": str(start), "hf_config_overrides": overrides or {}}
    (step / "config.yaml").write_text(yaml.safe_dump({"policy": policy}))
    return tensors


def test_dtensor_steps_become_a_trajectory(start, tmp_path):
    weights = {n: trained(start, tmp_path / f"checkpoints/step_{n}", change=n / 1000) for n in (2, 10)}
    made = export_run(tmp_path / "checkpoints", tmp_path / "hf")
    assert [path.name for path in made] == ["step_2", "step_10"]
    for number, path in zip((2, 10), made, strict=True):
        written = load_file(path / "model.safetensors")
        assert written.keys() == weights[number].keys()
        assert all(torch.equal(written[name], weights[number][name]) for name in written)
        assert json.loads((path / "config.json").read_text()) == json.loads((start / "config.json").read_text())
        assert (path / "tokenizer.json").is_file()
        proof = json.loads((path / "proof.json").read_text())
        assert (proof["level"], proof["round_trip"], proof["runs"]["logits_max"]) == ("full", "bit-equal", 0.0)


def test_overrides_survive(start, tmp_path):
    """NeMo-RL's converters look for `hf_overrides`; its trainer took `hf_config_overrides`."""
    trained(start, tmp_path / "step_1", overrides=ROPE)
    out = export_step(tmp_path / "step_1", tmp_path / "out")
    assert {key: json.loads((out / "config.json").read_text())[key] for key in ROPE} == ROPE
    assert not list(tmp_path.glob(".reference-*"))


def test_a_lost_override_fails_the_proof(start, tmp_path):
    """As upstream's converter would leave it: the trainer computed with other rotations than the export would."""
    trained(start, tmp_path / "step_1", overrides=ROPE)
    said = yaml.safe_load((tmp_path / "step_1/config.yaml").read_text())
    said["policy"]["hf_overrides"] = said["policy"].pop("hf_config_overrides")
    (tmp_path / "step_1/config.yaml").write_text(yaml.safe_dump(said))
    with pytest.raises(PrismError, match=r"computes otherwise .* compare their config\.json"):
        export_step(tmp_path / "step_1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_come_in_the_references_dtype(start, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(start, half)
    tensors = {name: value.bfloat16() for name, value in load_file(start / "model.safetensors").items()}
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    trained(half, tmp_path / "step_1")
    out = export_step(tmp_path / "step_1", tmp_path / "out")
    assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    proof = json.loads((out / "proof.json").read_text())
    assert "rounded to the reference's dtype" in proof["round_trip"]
    assert 0 < proof["runs"]["kl"] < 1e-3


@pytest.mark.slow
def test_megatron_steps(start, tmp_path):
    from prism_nemo.checkpoints.importing import import_hf

    tuned = tmp_path / "tuned"
    trained(start, tmp_path / "source", change=0.02)
    shutil.copytree(start, tuned)
    shutil.copy(
        tmp_path / "source/policy/weights/model/consolidated" / SHARD,
        tuned / "model.safetensors",
    )
    step = tmp_path / "step_20"
    import_hf(tuned, step / "policy/weights", proof="keys")
    (step / "config.yaml").write_text(
        yaml.safe_dump({"policy": {"model_name": str(start), "hf_config_overrides": {"max_position_embeddings": 77}}})
    )
    out = export_step(step, tmp_path / "out", proof="keys")
    ours, theirs = load_file(out / "model.safetensors"), load_file(tuned / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == 77


def test_what_is_no_checkpoint_of_the_model_is_refused(start, tmp_path):
    with pytest.raises(InputError, match=r"no config\.yaml"):
        export_step(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="holds none"):
        export_run(tmp_path, tmp_path / "out")
    tensors = trained(start, tmp_path / "step_1")
    with pytest.raises(InputError, match="--reference"):
        export_step(tmp_path / "step_1", tmp_path / "out", reference=tmp_path / "none")
    folder = tmp_path / "step_1/policy/weights/model/consolidated"
    for broken, message in (
        ({name: value for name, value in tensors.items() if "layers.0" not in name}, "lacks model.layers.0"),
        ({**tensors, "model.extra": torch.zeros(1)}, "holds unknown model.extra"),
        ({**tensors, "lm_head.weight": torch.zeros(3, 3)}, r"lm_head\.weight is \[3, 3\]"),
    ):
        write(broken, folder)
        with pytest.raises(InputError, match=message):
            export_step(tmp_path / "step_1", tmp_path / "out")
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="save_consolidated=true"):
        export_step(tmp_path / "step_1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(start, tmp_path):
    trained(start, tmp_path / "checkpoints/step_4")
    one = CliRunner().invoke(app, ["export", str(tmp_path / "checkpoints"), "--out", str(tmp_path / "hf")])
    assert "step_4: 21 tensors; bit-equal" in one.stdout

"""All seven pico models there and back with the whole proof, in every parallel layout, and through training steps."""

import json
import shutil

import conversion_ranks
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prism_nemo.artifacts import read_manifest
from prism_nemo.artifacts import verify as rehash
from prism_nemo.checkpoints.hf_folder import canonical, open_hf
from prism_nemo.checkpoints.reference import hf_logits, load_hf
from prism_nemo.checkpoints.verifying import verify
from prism_nemo.engine.local import call_local
from prism_nemo.models.facts import BASES, base_shape, read_config
from prism_nemo.models.limits import legal_tensor

pytestmark = pytest.mark.slow
LENGTH = 40  # beyond window (24) and chunk (32)


def tensors(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {canonical(name): tensor for name, tensor in load_file(file).items()}
    return found


def assert_same_bits(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("name", BASES)
def test_there_and_back(conversions, name):
    done = conversions[name]
    assert_same_bits(tensors(done.hf), tensors(done.exported))
    assert read_config(done.exported) == read_config(done.hf)
    for folder in (done.megatron, done.exported):
        assert rehash(folder) == []
        proof = json.loads((folder / "proof.json").read_text())
        assert proof == read_manifest(folder).metrics["proof"]
        assert (proof["level"], proof["round_trip"]) == ("full", "bit-equal")
        runs = proof["runs"]
        assert max(runs["fp32"]["logits_max"], runs["fp32"]["logits_relative"]) <= 1e-5
        assert runs["fp32"]["gradient_relative"] <= 1e-3
        for edge in (runs["window"], runs["chunk"]):
            assert edge is None or min(runs["lengths"]) < edge < max(runs["lengths"])
    _, info = AutoModelForCausalLM.from_pretrained(done.exported, output_loading_info=True)
    assert not any(info.values())
    assert len(list(done.exported.glob("*.safetensors"))) > 1


def test_the_multipliers_are_not_in_the_weights(conversions):
    """What is stored in the checkpoint is the Hugging Face tensor itself, tied embeddings once."""
    from prism_nemo.checkpoints.torch_dist import TorchDist

    done = conversions["granite_3_3_8b"]
    stored = TorchDist(done.megatron / "iter_0000000")
    theirs = open_hf(done.hf)
    assert "output_layer.weight" not in stored.tensors
    embedding = stored.read("embedding.word_embeddings.weight", (0, 0), (511, 64))
    assert torch.equal(embedding, theirs.read("model.embed_tokens.weight"))
    down = stored.read("decoder.layers.mlp.linear_fc2.weight", (1, 0, 0), (1, 64, 96))[0]
    assert torch.equal(down, theirs.read("model.layers.1.mlp.down_proj.weight"))


@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (1, 2), (2, 2)])
def test_every_layout_computes_the_same_and_exports_the_same_bytes(conversions, tmp_path, tensor, pipeline):
    from prism_nemo.checkpoints.exporting import run_export

    names = [name for name in BASES if tensor in legal_tensor(base_shape(name))]
    assert len(names) == (6 if tensor == 2 else 7)  # Granite-4-H has one Mamba group
    if (tensor, pipeline) == (2, 2):
        names = ["granite_3_3_8b"]  # the one with most to lose: tied, so kept by both ends, and padded
    items = [(conversions.hf(n), conversions[n].megatron / "iter_0000000", tmp_path / n / "saved") for n in names]
    logits = call_local(conversion_ranks.relayout, items, tensor, pipeline, LENGTH, processes=tensor * pipeline)
    for name, ours, (hf, _, saved) in zip(names, logits, items, strict=True):
        tokens = torch.randint(1, 511, (1, LENGTH), generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            expected = hf_logits(load_hf(hf), tokens)
        assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max(), name
        out = tmp_path / name / "out"
        out.mkdir()
        call_local(run_export, saved / "iter_0000000", hf, out, "keys", 300_000)
        for file in conversions[name].exported.glob("*.safetensors"):
            assert file.read_bytes() == (out / file.name).read_bytes(), (name, file.name)


@pytest.mark.parametrize("name", BASES)
def test_training_steps_equal_transformers_and_adamw(conversions, name):
    """Two steps, fp32: losses to 1e-5 and gradient norm to 1e-4 (relative), weights to 2e-6 after updates of 1e-3."""
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randint(1, 511, (2, LENGTH + 1), generator=generator) for _ in range(2)]
    # 0 is the pad token of all that have one; transformers gives the pad row no gradient from the input side
    assert read_config(conversions.hf(name)).get("pad_token_id") in (None, 0)
    folder = conversions[name].megatron / "iter_0000000"
    losses, weights, norm = call_local(conversion_ranks.steps, conversions.hf(name), folder, batches)
    model = load_hf(conversions.hf(name))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected, expected_norm = conversion_ranks.hf_steps(model, batches, hf_logits)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert norm == pytest.approx(expected_norm, rel=1e-4)
    after = dict(model.named_parameters())
    prefix = "model.", ("backbone." if name == "nemotron_h_8b" else "model.")
    moved = 0.0
    for key, value in after.items():
        ours = weights[key.replace(*prefix, 1)]
        assert (ours - value).abs().max() <= 2e-6, key
        moved = max(moved, (value - before[key]).abs().max().item())
    assert moved > 5e-4
    assert len(weights) == len(after)


def test_verify_finds_a_flipped_bit_on_either_side(conversions, tmp_path):
    done = conversions["llama_3_1_8b"]
    same = verify(done.hf, done.megatron, proof="keys")
    assert same.equal
    assert same.tensors == 39
    assert verify(done.hf, done.exported).equal
    for source, pattern, other in ((done.hf, "*.safetensors", done.megatron), (done.megatron, "*/*.distcp", done.hf)):
        copy = tmp_path / source.name
        shutil.copytree(source, copy)
        file = sorted(copy.glob(pattern))[0]
        raw = bytearray(file.read_bytes())
        raw[-(len(raw) // 3)] ^= 1
        file.write_bytes(raw)
        found = verify(copy, other, proof="none")
        assert len(found.different) == 1
        assert not found.equal
    problems = rehash(tmp_path / "megatron")
    assert len(problems) == 1
    assert "another hash" in problems[0]


def test_verify_tells_of_configurations_that_differ(conversions, tmp_path):
    """Equal weights, read with another rotary base; another spelling of the same base is no difference."""
    done = conversions["mistral_7b"]
    copy = tmp_path / "copy"
    shutil.copytree(done.hf, copy)
    config = read_config(copy)
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    (copy / "config.json").write_text(json.dumps(config))
    assert verify(copy, done.megatron, proof="keys").configurations == []
    config["rope_parameters"]["rope_theta"] = 5e5
    (copy / "config.json").write_text(json.dumps(config))
    found = verify(copy, done.megatron, proof="keys")
    assert found.equal
    assert len(found.configurations) == 1
    assert "500000.0" in found.configurations[0]


def test_verify_runs_the_models(conversions):
    done = conversions["granite_4_0_h_micro"]
    found = verify(done.megatron, done.exported, proof="full")
    assert found.equal
    assert found.runs["fp32"]["logits_max"] <= 1e-5

"""What an import or export refuses, and what it leaves behind."""

import json
import multiprocessing
import os
import shutil
import signal
import time

import conversion_ranks
import pytest
import torch
from safetensors.torch import load_file, save_file

from prism_nemo.artifacts import read_manifest
from prism_nemo.checkpoints.exporting import export_hf
from prism_nemo.checkpoints.hf_folder import open_hf
from prism_nemo.checkpoints.importing import import_hf
from prism_nemo.checkpoints.torch_dist import TorchDist
from prism_nemo.checkpoints.verifying import verify
from prism_nemo.engine.local import call_local
from prism_nemo.errors import InputError, PrismError
from prism_nemo.models.pico import make_pico

pytestmark = pytest.mark.slow
SIZES = {"vocab_size": 301, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 48, "layers": 2, "chunk": 32, "window": 24,
         "mamba_head_dim": 8, "mamba_state": 8, "norm_noise": 0.1}  # fmt: skip


@pytest.fixture
def make(tmp_path):
    def build(name="llama_3_1_8b", **changes):
        return make_pico(name, tmp_path / name, **(SIZES | changes))

    return build


def edit(hf, change):
    """Change the tensors of a single-file model."""
    tensors = load_file(hf / "model.safetensors")
    change(tensors)
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})


def edit_config(hf, **changes):
    path = hf / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(hf, out, match, **options):
    with pytest.raises((InputError, PrismError), match=match) as error:
        import_hf(hf, out, **options)
    assert len(str(error.value).splitlines()) <= 2
    assert not out.exists()


def test_damaged_directories(make, tmp_path):
    hf, out = make(), tmp_path / "out"
    file = hf / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    refused(hf, out, "cut short")
    file.unlink()
    refused(hf, out, "no weights")
    torch.save({"x": torch.ones(1)}, hf / "pytorch_model.bin")
    refused(hf, out, "pickled weights only")
    refused(hf, out, "holds unknown x|lacks", allow_pickle=True)
    refused(tmp_path / "nowhere", out, "not a directory")


def test_pickled_weights_that_are_asked_for(make, tmp_path):
    """They make the very checkpoint that safetensors make, with the same proof."""
    hf = make()
    plain = import_hf(hf, tmp_path / "plain")
    torch.save(load_file(hf / "model.safetensors"), hf / "pytorch_model.bin")
    (hf / "model.safetensors").unlink()
    pickled = import_hf(hf, tmp_path / "pickled", allow_pickle=True)
    files = [(folder / "iter_0000000/__0_0.distcp").read_bytes() for folder in (plain, pickled)]
    assert files[0] == files[1]
    proofs = [json.loads((folder / "proof.json").read_text()) for folder in (plain, pickled)]
    assert proofs[0] == proofs[1]
    assert proofs[0]["level"] == "full"


def test_weights_that_contradict_the_configuration(make, tmp_path):
    hf, out = make(), tmp_path / "out"
    edit(hf, lambda tensors: tensors.update(surprise=torch.zeros(3)))
    refused(hf, out, "holds unknown surprise")
    edit(hf, lambda tensors: (tensors.pop("surprise"), tensors.pop("model.layers.1.mlp.up_proj.weight")))
    refused(hf, out, r"lacks model\.layers\.1\.mlp\.up_proj\.weight")
    shutil.rmtree(hf)
    hf = make()
    edit_config(hf, intermediate_size=64)
    refused(
        hf, out, r"is \[48, 32\], config\.json makes it \[64, 32\]; config\.json and weights do not belong together"
    )
    edit_config(hf, intermediate_size=48, torch_dtype="bfloat16")
    refused(hf, out, "is F32, but the torch_dtype in .* makes it BF16; correct torch_dtype")
    edit_config(hf, torch_dtype="float32", num_hidden_layers=1)
    refused(hf, out, "holds unknown")
    edit_config(hf, torch_dtype="flaot32")
    refused(hf, out, "torch_dtype is 'flaot32'; use float32, bfloat16 or float16")
    edit_config(hf, torch_dtype="float32", num_key_value_heads=3)
    refused(hf, out, "num_attention_heads 4 is no multiple of num_key_value_heads 3")


def test_other_architectures(make, tmp_path):
    hf, out = make(), tmp_path / "out"
    edit_config(hf, architectures=["NoSuchForCausalLM"], model_type="no_such")
    refused(hf, out, "no_such")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rms_norm_eps": 1e-6}, "gated norm has 1e-05"),
        ({"time_step_limit": [0.0, 0.1]}, "Megatron has none"),
        ({"mamba_conv_bias": False}, "mamba_conv_bias is false"),
        ({"num_local_experts": 4, "num_experts_per_tok": 2}, "experts are not supported"),
    ],
)
def test_a_granite_that_megatron_cannot_express(make, tmp_path, change, match):
    hf = make("granite_4_0_h_micro")
    edit_config(hf, **change)
    refused(hf, tmp_path / "out", f"config.json: no Megatron model of it: this Granite .*{match}")


@pytest.mark.parametrize("name", ["granite_3_3_8b", "granite_4_0_micro"])
def test_granite_multipliers_other_than_the_published(make, tmp_path, name):
    """The published attention multiplier is what Megatron would take by itself: another shows that it is read."""
    hf = make(name, init_std=0.1, embedding_scale=0.03)
    edit_config(hf, attention_multiplier=0.3, residual_multiplier=0.5, embedding_multiplier=3.0, logits_scaling=2.0)
    edit_config(hf, rms_norm_eps=1e-3)
    runs = json.loads((import_hf(hf, tmp_path / "out") / "proof.json").read_text())["runs"]
    assert runs["fp32"]["logits_relative"] <= 1e-5


def test_what_is_written_wrongly_is_found_by_reading_it_back(make, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(PrismError, match=r"o_proj\.weight comes back from .* with other bits"):
        call_local(conversion_ranks.import_with_a_wrong_bit, make(), tmp_path / "out")


def test_tied_weights_that_differ(make, tmp_path):
    hf, out = make("granite_3_3_8b"), tmp_path / "out"
    edit(hf, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    import_hf(hf, out)
    assert verify(hf, out, proof="none").equal, "one matrix on both sides"
    assert verify(hf, make_pico("granite_3_3_8b", tmp_path / "once", **SIZES), proof="none").equal
    edit(hf, lambda tensors: tensors["lm_head.weight"].add_(1))
    assert verify(hf, out, proof="none").only_a == ["lm_head.weight"]
    for proof in ("auto", "none"):
        refused(
            hf, tmp_path / "other", "ties lm_head.weight to model.embed_tokens.weight, but they differ", proof=proof
        )


def test_rope_scaling_other_than_megatrons_own(make, tmp_path):
    """Megatron-Core hard-wires llama3's 8192; the logits tell that ours are the configuration's."""
    hf = make(init_std=0.3)
    scaling = json.loads((hf / "config.json").read_text())["rope_scaling"]
    edit_config(hf, rope_scaling=scaling | {"original_max_position_embeddings": 64})
    import_hf(hf, tmp_path / "out")
    edit_config(hf, rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    refused(hf, tmp_path / "other", "rope_type 'dynamic' is not known here")


def test_both_spellings_of_nemotrons_embedding(make, tmp_path):
    hf = make("nemotron_h_8b")
    first = import_hf(hf, tmp_path / "published")
    edit(hf, lambda tensors: tensors.update({"backbone.embedding.weight": tensors.pop("backbone.embeddings.weight")}))
    second = import_hf(hf, tmp_path / "transformers")
    files = [(folder / "iter_0000000/__0_0.distcp").read_bytes() for folder in (first, second)]
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["llama_3_1_8b", "nemotron_h_8b"])
def test_half_precision_is_kept(make, tmp_path, name):
    """Megatron keeps A_log and D in fp32; they come back as the bf16 they were."""
    hf = make(name, dtype="bfloat16", init_std=0.1)
    megatron = import_hf(hf, tmp_path / "megatron")
    stored = {value.properties.dtype for value in TorchDist(megatron / "iter_0000000").tensors.values()}
    assert torch.bfloat16 in stored
    exported = export_hf(megatron, tmp_path / "exported")
    before, after = open_hf(hf), open_hf(exported)
    assert {n: e.dtype for n, e in before.entries.items()} == {n: e.dtype for n, e in after.entries.items()}
    assert all(torch.equal(before.read(n), after.read(n)) for n in before.entries)
    runs = json.loads((exported / "proof.json").read_text())["runs"]
    assert runs["bf16"]["kl_mean"] <= 1e-3
    assert runs["bf16"]["top1"] >= 0.9


def test_what_the_references_dtype_rounds_is_read_back_too(make, tmp_path):
    """A trained A_log has bits that bf16 cannot hold: the proof is of the rounded values."""
    exact = make("granite_4_0_h_micro", init_std=0.1)
    megatron = import_hf(exact, tmp_path / "megatron", proof="keys")
    reference = tmp_path / "reference"
    shutil.copytree(exact, reference)
    edit(reference, lambda tensors: tensors.update({n: t.bfloat16() for n, t in tensors.items() if "A_log" in n}))
    out = export_hf(megatron, tmp_path / "out", reference=reference, proof="keys")
    rounded = sum("A_log" in name for name in open_hf(out).entries)
    proof = json.loads((out / "proof.json").read_text())
    assert proof["round_trip"] == f"bit-equal but {rounded} rounded to the reference's dtype"
    with pytest.raises(PrismError, match=r"A_log comes back from .* with other bits"):
        call_local(conversion_ranks.export_with_a_wrong_bit, megatron / "iter_0000000", reference, tmp_path)


def test_a_reference_without_weights_gets_the_dtype_of_the_checkpoint(make, tmp_path):
    megatron = import_hf(make(dtype="bfloat16"), tmp_path / "megatron", proof="none")
    (tmp_path / "reference").mkdir()
    config = json.loads((megatron / "hf/config.json").read_text())
    (tmp_path / "reference/config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    out = export_hf(megatron, tmp_path / "out", reference=tmp_path / "reference", proof="keys")
    assert {entry.dtype for entry in open_hf(out).entries.values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text()) == config


def test_a_reference_whose_files_changed_makes_another_export(make, tmp_path):
    megatron = import_hf(make(), tmp_path / "megatron", proof="none")
    template, tensors = megatron / "hf/chat_template.jinja", megatron / "hf/tensors.json"
    template.write_text("first")
    out = export_hf(megatron, tmp_path / "out", proof="none")
    assert export_hf(megatron, out, proof="none") == out
    template.write_text("second")
    with pytest.raises(InputError, match=r"made differently: reference/chat_template\.jinja: '\w+' -> '\w+'; --force"):
        export_hf(megatron, out, proof="none")
    template.write_text("first")
    tensors.write_text(tensors.read_text().replace("F32", "BF16"))
    with pytest.raises(InputError, match="made differently: reference/dtypes"):
        export_hf(megatron, out, proof="none")
    export_hf(megatron, out, proof="none", force=True)
    assert {entry.dtype for entry in open_hf(out).entries.values()} == {torch.bfloat16}


def test_two_megatron_checkpoints_of_which_one_says_what_it_is(make, tmp_path):
    described = import_hf(make(), tmp_path / "described", proof="none")
    bare = shutil.copytree(described, tmp_path / "bare", ignore=shutil.ignore_patterns("hf"))
    assert verify(bare, described, proof="none").equal
    assert verify(described, bare, proof="none").equal
    with pytest.raises(InputError, match=r"neither .* carries a Hugging Face config\.json; compare") as error:
        verify(bare, bare, proof="none")
    assert "--reference" not in str(error.value)


def test_output_directories(make, tmp_path):
    hf, out = make(), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is no artifact"):
        import_hf(hf, out)
    (out / "notes.txt").unlink()
    import_hf(hf, out, proof="keys")
    made = read_manifest(out).created, (out / "iter_0000000/__0_0.distcp").stat().st_mtime_ns
    import_hf(hf, out, proof="keys")
    assert made == (read_manifest(out).created, (out / "iter_0000000/__0_0.distcp").stat().st_mtime_ns)
    edit(hf, lambda tensors: tensors["model.norm.weight"].add_(1))
    with pytest.raises(InputError, match="input hf changed"):
        import_hf(hf, out, proof="keys")
    one = import_hf(hf, tmp_path / "name", proof="keys", content_addressed=True)
    edit(hf, lambda tensors: tensors["model.norm.weight"].add_(1))
    two = import_hf(hf, tmp_path / "name", proof="keys", content_addressed=True)
    assert one != two
    assert one.name.startswith("name-")
    again = import_hf(hf, tmp_path / "name", proof="keys", content_addressed=True)
    assert again == two
    exported = [export_hf(folder, tmp_path / "hf", proof="keys", content_addressed=True) for folder in (one, two)]
    assert exported[0] != exported[1]
    assert all(folder.name.startswith("hf-") and (folder / "config.json").is_file() for folder in exported)


def test_damaged_checkpoints(make, tmp_path):
    hf, out = make(), tmp_path / "out"
    megatron = import_hf(hf, tmp_path / "megatron", proof="keys")

    def export_refused(folder, match, **options):
        with pytest.raises(InputError, match=match):
            export_hf(folder, out, **options)
        assert not out.exists()

    export_refused(hf, "no Megatron checkpoint")
    other = make("granite_3_3_8b")
    export_refused(megatron, "is not a checkpoint of", reference=other)
    copy = tmp_path / "copy"
    shutil.copytree(megatron, copy)
    shutil.rmtree(copy / "hf")
    export_refused(copy, "name the base's directory with --reference")
    data = copy / "iter_0000000/__0_0.distcp"
    data.write_bytes(data.read_bytes()[:-50])
    export_refused(copy, "the checkpoint is damaged", reference=hf)
    data.unlink()
    export_refused(copy, "is not there; the checkpoint is damaged", reference=hf)
    (copy / "iter_0000000/.metadata").write_bytes(b"cos\nsystem\n(S'echo unpickled'\ntR.")
    export_refused(copy, r"os\.system has no place in a checkpoint", reference=hf)
    (copy / "latest_checkpointed_iteration.txt").write_text("7")
    export_refused(copy, "names iteration 7, but iter_0000007 is not there", reference=hf)


def run_import_forever(hf, out):
    from prism_nemo.checkpoints import importing

    importing.check_round_trip = lambda *args: time.sleep(60)
    import_hf(hf, out)


def test_a_killed_import_leaves_nothing_that_looks_whole(make, tmp_path):
    hf, out = make(), tmp_path / "out"
    process = multiprocessing.get_context("spawn").Process(target=import_hf, args=(hf, out))
    process.start()
    draft = tmp_path / ".out.partial"
    while not draft.exists() and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not out.exists()
    assert not (draft / "artifact.json").exists()
    assert import_hf(hf, out) == out
    assert not draft.exists()

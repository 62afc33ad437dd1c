"""Hugging Face directories: read and written like safetensors does, and refused when they are not whole."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from prism_nemo.checkpoints.hf_folder import Planned, open_hf, write_sharded
from prism_nemo.errors import InputError

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


def plan(tensors):
    return [Planned(name=name, dtype=t.dtype, shape=tuple(t.shape)) for name, t in tensors.items()]


@pytest.fixture
def folder(tmp_path):
    """Two files and an index."""
    tensors = {f"layer.{i}.weight": torch.randn(4, 8) for i in range(4)}
    (tmp_path / "config.json").write_text("{}")
    write_sharded(tmp_path, plan(tensors), tensors.items(), max_shard_bytes=300)
    return tmp_path


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=8),
    limit=st.integers(1, 2000),
    seed=st.integers(0, 5),
)
def test_what_is_written_is_what_safetensors_reads(tmp_path_factory, shapes, limit, seed):
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(seed)
    tensors = {f"t{i}": (torch.randn(shape) * 9).to(DTYPES[i % len(DTYPES)]) for i, shape in enumerate(shapes)}
    (directory / "config.json").write_text("{}")
    write_sharded(directory, plan(tensors), tensors.items(), max_shard_bytes=limit)
    theirs = {}
    for file in directory.glob("*.safetensors"):
        theirs |= load_file(file)
    ours = open_hf(directory)
    assert set(theirs) == set(ours.entries) == set(tensors)
    for name, tensor in tensors.items():
        for read in (theirs[name], ours.read(name)):
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)


def test_what_safetensors_writes_is_read(tmp_path):
    tensors = {"a": torch.randn(3, 5, dtype=torch.float64), "backbone.embedding.weight": torch.zeros(2)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    folder = open_hf(tmp_path)
    assert torch.equal(folder.read("a"), tensors["a"])
    assert "backbone.embeddings.weight" in folder.entries  # one canonical spelling


def test_the_plan_is_kept_or_nothing_is_claimed(tmp_path):
    tensors = {"a": torch.zeros(2)}
    with pytest.raises(ValueError, match="planned"):
        write_sharded(tmp_path, plan(tensors), [("a", torch.zeros(3))], max_shard_bytes=100)


def refused(directory, match):
    with pytest.raises(InputError, match=match):
        open_hf(directory)


def test_a_missing_shard(folder):
    next(folder.glob("model-00001*")).unlink()
    refused(folder, "model-00001-of-00002.safetensors, which is not there; fetch")


@pytest.mark.parametrize("keep", [3, 20, -1])
def test_a_truncated_file(folder, keep):
    file = next(folder.glob("model-00002*"))
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, "cut short")


def test_bytes_appended(folder):
    file = next(folder.glob("model-00002*"))
    file.write_bytes(file.read_bytes() + b"x")
    refused(folder, "appended to")


def test_a_broken_header(folder):
    file = next(folder.glob("model-00001*"))
    raw = bytearray(file.read_bytes())
    raw[10] = 0xFF
    file.write_bytes(raw)
    refused(folder, "broken header")


def edit_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_an_index_with_a_tensor_that_no_file_has(folder):
    edit_index(folder, lambda weights: weights.update(ghost="model-00001-of-00002.safetensors"))
    refused(folder, "lacks tensors against its index: ghost")


def test_a_tensor_the_index_does_not_name(folder):
    edit_index(folder, lambda weights: weights.pop("layer.0.weight"))
    refused(folder, r"holds besides tensors against its index: layer\.0\.weight")


def test_an_index_that_points_elsewhere(folder):
    edit_index(folder, lambda weights: weights.update({"layer.0.weight": "../other.safetensors"}))
    refused(folder, "points outside the directory")


def test_a_broken_index(folder):
    (folder / "model.safetensors.index.json").write_text("[]")
    refused(folder, "cannot be read")


def test_no_index_to_say_whether_a_file_is_missing(folder):
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, r"neither model\.safetensors nor model\.safetensors\.index\.json; fetch")


def test_one_tensor_in_two_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for name in ("a", "b"):
        save_file({"same": torch.zeros(1), name: torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"same": "a.safetensors", "a": "a.safetensors", "b": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, r"same is in both a\.safetensors and b\.safetensors")


def test_no_directory_no_config_no_weights(tmp_path):
    refused(tmp_path / "absent", "not a directory")
    refused(tmp_path, r"has no config\.json")
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, r"has no weights")


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_pickles_are_refused_then_read_as_plain_tensors(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "pickled weights only .* --allow-pickle")
    assert torch.equal(open_hf(tmp_path, allow_pickle=True).read("a"), torch.ones(2))
    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        open_hf(tmp_path, allow_pickle=True)
    assert "unpickled" not in capsys.readouterr().out

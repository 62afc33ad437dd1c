"""Merges equal fp64 arithmetic to half an ulp on pico models of all seven families, and load in transformers."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_nemo.artifacts import read_manifest, verify
from prism_nemo.artifacts.manifest import SIGNATURE
from prism_nemo.checkpoints.blend_kernel import add_scaled, round_into
from prism_nemo.checkpoints.components import canonical_name
from prism_nemo.checkpoints.hf_folder import Planned, open_hf, write_sharded
from prism_nemo.checkpoints.merge import CHUNK, parse_weights
from prism_nemo.checkpoints.merged import merge
from prism_nemo.errors import InputError, PrismError
from prism_nemo.models.pico import make_pico

FAMILIES = (
    "granite_3_3_8b",
    "granite_4_0_micro",
    "granite_4_0_h_micro",
    "llama_3_1_8b",
    "mistral_7b",
    "mistral_small_24b",
    "nemotron_h_8b",
)
SIZES = {"hidden": 32, "layers": 2, "heads": 4, "ffn": 48, "mamba_state": 8, "mamba_head_dim": 8, "norm_noise": 0.1}


def save(folder: Path, tensors: dict[str, torch.Tensor], config: dict | None = None, shard: int = 10**9) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "llama"}))
    planned = [Planned(name=name, dtype=tensor.dtype, shape=tuple(tensor.shape)) for name, tensor in tensors.items()]
    write_sharded(folder, planned, tensors.items(), max_shard_bytes=shard)
    return folder


def load(folder: Path) -> dict[str, torch.Tensor]:
    opened = open_hf(folder)
    return {name: opened.read(name) for name in opened.entries}


def models(folder: Path, family: str, count: int = 2, dtype: str = "bfloat16") -> list[Path]:
    return [
        make_pico(family, folder / f"{family}_{k}", vocab_size=65, seed=k, dtype=dtype, **SIZES) for k in range(count)
    ]


def assert_half_ulp(got: torch.Tensor, exact: torch.Tensor) -> None:
    """`got` is a number of its dtype nearest to `exact` (fp64): neither neighbour is nearer."""
    error = (got.double() - exact).abs()
    for towards in (math.inf, -math.inf):
        neighbour = torch.nextafter(got, torch.full_like(got, towards)).double()
        assert (error <= (neighbour - exact).abs()).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_papers_merge_is_exact_and_loads_in_transformers(family, tmp_path):
    base, tuned = models(tmp_path, family)
    merge([base, tuned], tmp_path / "out", parse_weights(["0.85"]))
    a, b, out = load(base), load(tuned), load(tmp_path / "out")
    assert set(out) == set(a)
    for name, tensor in out.items():
        assert tensor.dtype == torch.bfloat16
        assert_half_ulp(tensor, 0.15 * a[name].double() + 0.85 * b[name].double())
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    names = {canonical_name(name): tensor for name, tensor in out.items()}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.to(torch.bfloat16), names[canonical_name(name)])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_dtypes_are_exact_too(dtype, tmp_path):
    paths = models(tmp_path, "llama_3_1_8b", 3, dtype)
    merge(paths, tmp_path / "out", parse_weights(["0.2", "0.3", "0.5"]))
    loaded = [load(path) for path in paths]
    for name, tensor in load(tmp_path / "out").items():
        exact = 0.2 * loaded[0][name].double() + 0.3 * loaded[1][name].double() + 0.5 * loaded[2][name].double()
        assert_half_ulp(tensor, exact)


def assert_near_half_ulp(got: torch.Tensor, exact: torch.Tensor, scale: torch.Tensor) -> None:
    """Half a bf16 ulp, where two ways of writing the same sum differ in fp64's last digits."""
    assert ((got.double() - exact).abs() <= 2.0**-8 * exact.abs() + 1e-13 * scale).all()


def halves(name: str, *tensors: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """A fused gate and up is two components: gate rows, then up rows."""
    if "input_linear" not in name:
        return [tensors]
    return list(zip(*(tensor.chunk(2) for tensor in tensors), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_task_arithmetic_and_slerp_are_exact(family, tmp_path):
    paths = models(tmp_path, family, 3)
    merge(paths, tmp_path / "task", parse_weights(["0.6", "0.9"]), method="task")
    merge(paths[:2], tmp_path / "slerp", parse_weights(["0.85"]), method="slerp")
    base, one, two = (load(path) for path in paths)
    task, slerp = load(tmp_path / "task"), load(tmp_path / "slerp")
    assert set(task) == set(slerp) == set(base)
    for name, tensor in task.items():
        x, y, z = (model[name].double() for model in (base, one, two))
        scale = torch.maximum(torch.maximum(x.abs(), y.abs()), z.abs())
        assert_near_half_ulp(tensor, x + 0.6 * (y - x) + 0.9 * (z - x), scale)
        for got, a, b in halves(name, slerp[name], x, y):
            angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
            exact = (torch.sin(0.15 * angle) * a + torch.sin(0.85 * angle) * b) / torch.sin(angle)
            assert_near_half_ulp(got, exact, torch.maximum(a.abs(), b.abs()))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_by_component(family, tmp_path):
    base, tuned = models(tmp_path, family)
    merge([base, tuned], tmp_path / "out", parse_weights(["0.5", "attention=0.8", "mlp=0.9", "mlp.up=1"]))
    a, b, out = load(base), load(tuned), load(tmp_path / "out")
    seen, rest = set(), {0.5: 0.5, 0.8: 0.2, 0.9: 0.1, 1.0: 0.0}
    for name in out:
        weights = [0.5]
        if re.search(r"\.[qkvo]_proj\.", name):
            weights = [0.8]
        elif re.search(r"\.(gate_proj|down_proj|output_linear)\.", name):
            weights = [0.9]
        elif ".up_proj." in name:
            weights = [1.0]
        elif ".input_linear." in name:
            weights = [0.9, 1.0]
        for (got, x, y), weight in zip(halves(name, out[name], a[name], b[name]), weights, strict=True):
            assert_half_ulp(got, rest[weight] * x.double() + weight * y.double())
        seen |= set(weights)
    assert seen == {0.5, 0.8, 0.9, 1.0}


def test_slerp_keeps_the_angle_and_falls_back_when_there_is_none(tmp_path):
    a, b = torch.zeros(4), torch.zeros(4)
    a[0], b[1] = 1.0, 1.0
    one = save(tmp_path / "a", {"x": a, "same": torch.ones(4), "zero": torch.zeros(2)})
    two = save(tmp_path / "b", {"x": b, "same": 2 * torch.ones(4), "zero": torch.zeros(2)})
    merge([one, two], tmp_path / "out", parse_weights(["0.25"]), method="slerp")
    out = load(tmp_path / "out")
    angle = math.pi / 8
    assert torch.allclose(out["x"], torch.tensor([math.cos(angle), math.sin(angle), 0, 0]), atol=1e-7)
    assert torch.equal(out["same"], 1.25 * torch.ones(4))
    assert torch.equal(out["zero"], torch.zeros(2))


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.integers(0, 0xFFFF), min_size=2, max_size=2), st.floats(0, 1))
def test_rounding_is_to_the_nearest_even(pair, weight):
    bits = torch.tensor(pair, dtype=torch.int32).to(torch.int16)
    values = bits.view(torch.bfloat16)
    if not torch.isfinite(values).all():
        return
    total = torch.zeros(1, dtype=torch.float64).numpy()
    for value, share in zip(values, (1 - weight, weight), strict=True):
        assert add_scaled(value[None].view(torch.uint8).numpy(), torch.bfloat16, share, total)
    exact = torch.from_numpy(total)
    got = torch.empty(1, dtype=torch.bfloat16)
    fits = round_into(total, torch.bfloat16, got.view(torch.uint8).numpy())
    assert fits == bool(torch.isfinite(got).all())
    assert_half_ulp(got, exact)
    nearest = got.double()
    for towards in (math.inf, -math.inf):
        other = torch.nextafter(got, torch.full_like(got, towards))
        if (other.double() - exact).abs() == (nearest - exact).abs() and not torch.equal(other, got):
            assert got.view(torch.int16).item() % 2 == 0


def test_a_tied_head_is_written_once_and_files_go_along(tmp_path):
    base, tuned = models(tmp_path, "granite_3_3_8b")
    config, tensors = open_hf(tuned).config, load(tuned)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    with_head = save(tmp_path / "head", tensors, config)
    (base / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    (base / "chat_template.jinja").write_text("hello")
    metrics = merge([base, with_head], tmp_path / "out", parse_weights(["0.85"]))
    assert "lm_head.weight" not in load(tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "hello"
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == open_hf(base).config
    card = (tmp_path / "out" / "README.md").read_text()
    recipe = yaml.safe_load(card.split("```yaml")[1].split("```")[0])
    assert recipe == {"method": "linear", "base": base.name, "models": ["head"], "weights": [0.85]}
    assert SIGNATURE in card, "the report of a run may put its own in its place"
    manifest = read_manifest(tmp_path / "out")
    assert [entry.name for entry in manifest.inputs] == ["base", "model_1"]
    assert metrics["bytes"] == sum(tensor.nbytes for tensor in load(tmp_path / "out").values())


def test_shards_and_threads_do_not_change_a_byte(tmp_path):
    base, tuned = models(tmp_path, "nemotron_h_8b")
    split = save(tmp_path / "split", load(tuned), open_hf(tuned).config, shard=20_000)
    assert len(list(split.glob("*.safetensors"))) > 3
    merge([base, tuned], tmp_path / "one", parse_weights(["0.85"]), threads=1)
    merge([base, split], tmp_path / "two", parse_weights(["0.85"]), threads=4)
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_tensor_of_several_chunks_behind_an_odd_one(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base, tuned = (
        save(
            tmp_path / name,
            {
                part: torch.randn(n, generator=generator).bfloat16()
                for part, n in (("odd", 3), ("long", CHUNK * 2 + 77))
            },
        )
        for name in ("base", "tuned")
    )
    merge([base, tuned], tmp_path / "out", parse_weights(["0.85"]))
    a, b, out = load(base), load(tuned), load(tmp_path / "out")
    assert verify(tmp_path / "out") == []
    for name, tensor in out.items():
        assert_half_ulp(tensor, 0.15 * a[name].double() + 0.85 * b[name].double())


def test_differing_configurations_are_told(tmp_path):
    one = save(tmp_path / "a", {"x": torch.ones(2)}, {"model_type": "llama", "rope_theta": 1e4})
    two = save(tmp_path / "b", {"x": torch.ones(2)}, {"model_type": "llama", "rope_theta": 1e6, "dtype": "float32"})
    metrics = merge([one, two], tmp_path / "out", parse_weights(["0.5"]))
    assert metrics["config_differences"] == ["rope_theta: kept 10000.0, b has 1000000.0"]


def test_inputs_of_two_dtypes_merge_where_the_output_says_which(tmp_path):
    one = save(tmp_path / "a", {"x": torch.full((2,), 1.0, dtype=torch.bfloat16)})
    two = save(tmp_path / "b", {"x": torch.full((2,), 1 / 3)})
    merge([one, two], tmp_path / "out", parse_weights(["0.5"]), dtype="F32")
    out = load(tmp_path / "out")["x"]
    assert_half_ulp(out, 0.5 + 0.5 * load(two)["x"].double())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float32"


def test_a_sum_that_overflows_is_named(tmp_path):
    large = [save(tmp_path / f"large{k}", {"x": torch.full((2,), 6e4, dtype=torch.float16)}) for k in range(2)]
    with pytest.raises(PrismError, match="x overflows F16"):
        merge(large, tmp_path / "out", parse_weights(["2", "2"]), any_sum=True)


@pytest.mark.parametrize(
    ("texts", "method", "count", "match"),
    [
        (["attentoin=0.8"], "linear", 2, "no component 'attentoin'"),
        (["many"], "linear", 2, "is no number"),
        (["nan"], "linear", 2, "not finite"),
        (["0.5"], "mean", 2, "no merge method 'mean'"),
        (["0.5"], "linear", 1, "at least two models"),
        (["0.5", "attention=0.5"], "linear", 3, "for two models"),
        (["0.5"], "slerp", 3, "slerp is between two models"),
        (["0.2", "0.2", "0.2"], "task", 3, "task takes 2"),
    ],
)
def test_wrong_weights_are_refused(texts, method, count, match, tmp_path):
    with pytest.raises(InputError, match=match):
        merge([tmp_path / str(k) for k in range(count)], tmp_path / "out", parse_weights(texts), method=method)


@pytest.mark.slow
def test_megatron_checkpoints_merge_through_conversion(tmp_path):
    """The result has the base's format and the very weights of the merge of the Hugging Face directories."""
    from prism_nemo.checkpoints.importing import import_hf
    from prism_nemo.checkpoints.verifying import verify

    base, tuned = models(tmp_path, "granite_4_0_h_micro")
    (base / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    a, b = (import_hf(path, tmp_path / f"{path.name}_megatron", proof="keys") for path in (base, tuned))
    shutil.rmtree(b / "hf")  # as a checkpoint of a training run: its configuration is the base's
    weights = parse_weights(["0.85", "attention=0.8"])
    merge([base, tuned], tmp_path / "hf", weights)
    merge([a, b], tmp_path / "megatron", weights)
    merge([base, b], tmp_path / "mixed", weights)
    assert verify(tmp_path / "hf", tmp_path / "megatron", proof="keys").equal
    both = load(tmp_path / "hf"), load(tmp_path / "mixed")
    assert all(torch.equal(tensor, both[1][name]) for name, tensor in both[0].items())
    manifest = read_manifest(tmp_path / "megatron")
    assert manifest.kind == "megatron_checkpoint"
    assert sorted({name.split("/")[0] for name in manifest.files}) == [
        "hf", "iter_0000000", "latest_checkpointed_iteration.txt", "latest_train_state.pt", "proof.json",
    ]  # fmt: skip
    assert manifest.metrics["proof"]["round_trip"] == "bit-equal"
    assert (tmp_path / "megatron" / "hf" / "tokenizer.json").is_file()
    assert "attention: 0.8" in (tmp_path / "megatron" / "README.md").read_text()

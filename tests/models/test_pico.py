"""Pico variants have the class and structure of their base."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from prism_nemo.errors import InputError
from prism_nemo.models.facts import BASES, base_model, base_shape, read_config, shape
from prism_nemo.models.pico import make_pico, pico_config

CLASSES = {
    "granite_3_3_8b": "GraniteForCausalLM",
    "granite_4_0_micro": "GraniteMoeHybridForCausalLM",
    "granite_4_0_h_micro": "GraniteMoeHybridForCausalLM",
    "llama_3_1_8b": "LlamaForCausalLM",
    "mistral_7b": "MistralForCausalLM",
    "mistral_small_24b": "MistralForCausalLM",
    "nemotron_h_8b": "NemotronHForCausalLM",
}


@pytest.mark.parametrize("name", BASES)
def test_only_sizes_differ_from_the_base(name):
    base, pico = base_model(name).config, pico_config(name, 517)
    assert set(pico) - {"head_dim"} == set(base) - {"head_dim"}
    for key in (
        "architectures",
        "model_type",
        "rope_theta",
        "rope_scaling",
        "tie_word_embeddings",
        "logits_scaling",
        "embedding_multiplier",
        "residual_multiplier",
        "position_embedding_type",
        "mlp_hidden_act",
    ):
        assert pico.get(key) == base.get(key), key
    full, small = base_shape(name), shape(pico)
    assert set(small.pattern) == set(full.pattern)
    assert (full.heads * full.head_dim == full.hidden) == (small.heads * small.head_dim == small.hidden)
    assert (full.window is None) == (small.window is None)


@pytest.mark.parametrize("name", BASES)
def test_a_configuration_is_made_small_like_the_base_it_is_of(name):
    assert pico_config(base_model(name).config, 517) == pico_config(name, 517)


@pytest.mark.parametrize(
    ("ids", "kept"), [([128001, 128008, 128009], 0), ([3, 128009], [3]), ([], 0), (128001, 0), (3, 3), (None, None)]
)
def test_special_ids_outside_the_vocabulary_are_dropped(ids, kept):
    """A model may name several ends of text, as Llama's Instruct models do."""
    llama = base_model("llama_3_1_8b").config | {"eos_token_id": ids}
    assert pico_config(llama, 517)["eos_token_id"] == kept


def test_what_a_configuration_says_of_its_own_stays():
    granite = base_model("granite_3_3_8b").config | {"attention_multiplier": 2 / 128, "logits_scaling": 3.0}
    small = pico_config(granite, 517, hidden=64, heads=4)
    assert (small["attention_multiplier"], small["logits_scaling"]) == (2 / 16, 3.0)
    nemotron = base_model("nemotron_h_8b").config
    del nemotron["hybrid_override_pattern"], nemotron["torch_dtype"]
    written = nemotron | {"layers_block_type": ["mamba", "mlp"] * 26, "dtype": "bfloat16"}  # as transformers 5 does
    small = pico_config(written, 517, pattern="M-")
    assert shape(small).pattern == "M-"
    assert small["dtype"] == "float32"
    with pytest.raises(InputError, match="model_type 'gpt2' cannot be made small"):
        pico_config({"model_type": "gpt2"}, 517)


@pytest.mark.parametrize("name", BASES)
def test_written_models_load_whole_and_without_remote_code(tmp_path, name):
    make_pico(name, tmp_path, vocab_size=517, norm_noise=0.1, max_shard_size="1MB")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model).__name__ == CLASSES[name]
    assert not any(info.values())
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert read_config(tmp_path) == pico_config(name, 517)
    ones = [name for name, weight in model.named_parameters() if weight.ndim == 1 and bool((weight == 1).all())]
    assert ones == []
    assert torch.isfinite(model(torch.arange(40)[None]).logits).all()


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    first = make_pico("nemotron_h_8b", tmp_path / "a", vocab_size=300, seed=3)
    torch.randn(5)
    second = make_pico("nemotron_h_8b", tmp_path / "b", vocab_size=300, seed=3)
    other = make_pico("nemotron_h_8b", tmp_path / "c", vocab_size=300, seed=4)
    read = lambda folder: (folder / "model.safetensors").read_bytes()  # noqa: E731
    assert read(first) == read(second) != read(other)


def test_nemotron_h_is_written_with_the_published_names(tmp_path):
    from safetensors import safe_open

    make_pico("nemotron_h_8b", tmp_path, vocab_size=300)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert "backbone.embeddings.weight" in set(file.keys())


def test_a_tokenizer_travels_with_its_special_ids(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)} | {"<eos>": 40}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(tmp_path / "tokenizer")
    make_pico("llama_3_1_8b", tmp_path / "model", vocab_size=41, tokenizer_dir=tmp_path / "tokenizer")
    assert read_config(tmp_path / "model")["eos_token_id"] == 40
    assert (tmp_path / "model" / "tokenizer.json").is_file()

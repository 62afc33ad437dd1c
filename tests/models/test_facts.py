"""Facts of the seven bases, read without torch."""

import json
import subprocess
import sys

import pytest

from prism_nemo.errors import InputError
from prism_nemo.models.facts import BASES, base_model, base_shape, read_config, shape


def test_importing_facts_and_limits_loads_no_heavy_package():
    code = (
        "import sys; import prism_nemo.models.facts, prism_nemo.models.limits, prism_nemo.models.pico;"
        "print([name for name in ('torch', 'transformers', 'megatron', 'numpy') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_bases_are_found_by_name_and_by_hub_id():
    for base in BASES.values():
        assert base_model(base.name) is base
        assert base_model(base.hub_id.upper()) is base
    with pytest.raises(InputError, match="none of the seven bases; use one of granite_3_3_8b"):
        base_model("gpt2")


@pytest.mark.parametrize("name", BASES)
def test_published_parameter_count_follows_from_the_shape(name):
    """An independent count from the sizes alone: matrices and vectors as the architecture papers define them."""
    s = base_shape(name)
    attention = s.hidden * s.head_dim * (2 * s.heads + 2 * s.kv_heads)
    mlp = s.hidden * s.ffn * (3 if s.gated else 2)
    mamba = 0
    if s.mamba:
        inner, groups = s.mamba.heads * s.mamba.head_dim, 2 * s.mamba.groups * s.mamba.state
        conv = (inner + groups) * (s.mamba.conv_kernel + 1)
        mamba = s.hidden * (2 * inner + groups + s.mamba.heads) + conv + 3 * s.mamba.heads + inner + inner * s.hidden
    each = {"*": attention, "-": mlp, "M": mamba}
    total = sum(each[symbol] + s.hidden for symbol in s.pattern) + s.hidden + s.vocab * s.hidden * (2 - s.tied)
    assert total == BASES[name].parameters


def test_traps_of_the_seven():
    assert base_shape("granite_4_0_micro").pattern == "*-" * 40  # published as a hybrid, but dense
    assert base_shape("granite_4_0_h_micro").pattern.count("M") == 36
    assert base_shape("granite_4_0_h_micro").rope_theta is None  # NoPE
    assert base_shape("nemotron_h_8b").rope_theta is None
    assert base_shape("nemotron_h_8b").pattern.count("*") == 4
    assert base_shape("mistral_7b").window == 4096
    small = base_shape("mistral_small_24b")
    assert small.heads * small.head_dim != small.hidden
    assert small.window is None
    assert base_shape("granite_3_3_8b").vocab % 2 == 1
    assert base_shape("granite_3_3_8b").multipliers.logits == 16.0
    assert base_shape("llama_3_1_8b").multipliers is None


def test_padded_vocabulary_of_granite():
    assert [base_shape("granite_3_3_8b").padded_vocab(tensor) for tensor in (1, 2, 4, 8)] == [
        49159,
        49160,
        49160,
        49160,
    ]
    assert [base_shape("llama_3_1_8b").padded_vocab(tensor) for tensor in (1, 8)] == [128_256, 128_256]


def test_a_changed_configuration_cannot_leak_into_the_facts():
    base_model("llama_3_1_8b").config["hidden_size"] = 1
    assert base_model("llama_3_1_8b").config["hidden_size"] == 4096


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_key_value_heads": 3}, "num_attention_heads 40 is no multiple of num_key_value_heads 3"),
        ({"layer_types": ["attention"]}, "layer_types has 1 entries, num_hidden_layers is 40"),
    ],
)
def test_a_contradictory_configuration_is_named(change, message):
    with pytest.raises(InputError, match=message):
        shape(base_model("granite_4_0_micro").config | change)


def test_read_config_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"it has no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="no JSON object"):
        read_config(tmp_path)

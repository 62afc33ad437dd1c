"""What is known about the base models without loading one: ids, sizes and shapes, from their configurations.

Nothing here imports torch: recipes and plans are resolved on machines that have none.
"""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """One of the seven bases of the paper (arXiv 2603.17074, which names the models but no hub ids)."""

    name: str
    """As in recipes, `granite_3_3_8b`; its configuration is `configs/NAME.json`."""
    hub_id: str
    """Where the weights are on the Hugging Face hub."""
    parameters: int
    """Published count; tied embeddings are counted once."""

    @property
    def config(self) -> dict[str, Any]:
        """The Hugging Face `config.json`, a fresh copy."""
        return read_config(CONFIGS / f"{self.name}.json")


BASES: Mapping[str, BaseModel] = {
    name: BaseModel(name=name, hub_id=hub_id, parameters=parameters)
    for name, hub_id, parameters in (
        ("granite_3_3_8b", "ibm-granite/granite-3.3-8b-base", 8_170_864_640),
        ("granite_4_0_micro", "ibm-granite/granite-4.0-micro-base", 3_402_836_480),
        ("granite_4_0_h_micro", "ibm-granite/granite-4.0-h-micro-base", 3_191_396_096),
        ("llama_3_1_8b", "meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("mistral_7b", "mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("mistral_small_24b", "mistralai/Mistral-Small-24B-Base-2501", 23_572_403_200),
        ("nemotron_h_8b", "nvidia/Nemotron-H-8B-Base-8K", 8_100_852_736),
    )
}


def base_model(name_or_id: str) -> BaseModel:
    """A base by its recipe name or hub id (any case). Raises InputError that lists the seven."""
    wanted = name_or_id.lower()
    for base in BASES.values():
        if wanted in (base.name, base.hub_id.lower()):
            return base
    raise InputError(f"'{name_or_id}' is none of the seven bases; use one of {', '.join(BASES)}")


def read_config(path: Path) -> dict[str, Any]:
    """A `config.json`, or the one inside a model directory. Raises InputError when it is missing or no JSON object."""
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not a Hugging Face model directory: it has no {path.name}") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); fetch the model again") from None
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no JSON object; fetch the model again")
    return config


@dataclass(frozen=True, slots=True, kw_only=True)
class MambaShape:
    """The Mamba-2 mixer of a hybrid model."""

    heads: int
    head_dim: int
    groups: int
    """Groups that share B and C; tensor parallel must divide them."""
    state: int
    """State size per head and channel."""
    conv_kernel: int
    """Width of the causal convolution in tokens."""
    chunk: int
    """Tokens per chunk of the state-space-duality scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipliers:
    """Granite's four scalars (transformers, GraniteConfig); all others have 1, 1, 1/sqrt(head_dim), 1."""

    embedding: float
    """On the embedding output."""
    residual: float
    """On each sublayer's output before it is added to the stream."""
    attention: float
    """Softmax scale, in the place of 1/sqrt(head_dim)."""
    logits: float
    """Divisor of the logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a decoder, read from any Hugging Face configuration."""

    model_type: str
    layers: int
    """Hugging Face layers."""
    pattern: str
    """One symbol per sublayer as Megatron writes it: `*` attention, `-` MLP, `M` Mamba, `E` experts."""
    hidden: int
    ffn: int
    """Width of the MLP; of a gated one, of either half."""
    gated: bool
    """Whether the MLP multiplies two projections (SwiGLU) or has one (squared ReLU)."""
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    """Longest context in tokens."""
    tied: bool
    """Whether embedding and output layer are one matrix."""
    rope_theta: float | None
    """Base of the rotary embedding; None for a model without positions (NoPE)."""
    window: int | None
    """Sliding attention window in tokens, the token itself included."""
    multipliers: Multipliers | None
    mamba: MambaShape | None

    @property
    def hybrid(self) -> bool:
        """Whether it has Mamba layers."""
        return "M" in self.pattern

    @property
    def megatron_layers(self) -> int:
        """What pipeline parallelism divides: layers of a GPTModel, symbols of a HybridModel's pattern."""
        return len(self.pattern) if uses_hybrid_model(self.model_type) else self.layers

    def padded_vocab(self, tensor: int) -> int:
        """Rows of Megatron's embedding: the vocabulary, unless `tensor` ranks do not divide it.

        Then it is rounded up to a multiple of `tensor` and the largest power of two up to 128 that divides it
        (megatron-bridge 0.6.2, models/conversion/model_bridge.py, make_vocab_size_divisible_by).
        """
        step = tensor * math.gcd(self.vocab, 128)
        return -(-self.vocab // step) * step if self.vocab % tensor else self.vocab


def uses_hybrid_model(model_type: str) -> bool:
    """Whether Megatron builds it as a HybridModel; the other architectures are GPTModels, as in Megatron-Bridge."""
    return model_type in ("nemotron_h", "granitemoehybrid")


def shape(config: Mapping[str, Any]) -> Shape:
    """The sizes of a model from its `config.json`. Raises InputError that names a missing or contradictory field."""
    model_type = config.get("model_type", "")
    heads, hidden = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    kv_heads = int(config.get("num_key_value_heads") or heads)
    if heads % kv_heads:
        raise InputError(f"config.json: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}")
    head_dim = config.get("head_dim") or config.get("attention_head_dim") or hidden // heads
    pattern = _pattern(config)
    return Shape(
        model_type=model_type,
        layers=_size(config, "num_hidden_layers"),
        pattern=pattern,
        hidden=hidden,
        ffn=int(config.get("shared_intermediate_size") or _size(config, "intermediate_size")),
        gated=model_type != "nemotron_h",
        heads=heads,
        kv_heads=kv_heads,
        head_dim=int(head_dim),
        vocab=_size(config, "vocab_size"),
        max_positions=int(config.get("max_position_embeddings") or 0),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope_theta=_rope_theta(config),
        window=_window(config),
        multipliers=_multipliers(config),
        mamba=_mamba(config) if "M" in pattern else None,
    )


@functools.cache
def base_shape(name_or_id: str) -> Shape:
    """The sizes of one of the seven bases."""
    return shape(base_model(name_or_id).config)


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"config.json: {key} is {value!r}; it must be a whole number above 0")
    return value


def _pattern(config: Mapping[str, Any]) -> str:
    """One symbol per sublayer. Every Granite-4 layer is mixer + MLP, every Nemotron-H layer one of the three."""
    layers = _size(config, "num_hidden_layers")
    if config.get("model_type") == "nemotron_h":
        symbols = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
        pattern = config.get("hybrid_override_pattern") or "".join(
            symbols[kind] for kind in config.get("layers_block_type") or []
        )
        if len(pattern) != layers:
            raise InputError(f"config.json: the layer pattern has {len(pattern)} layers, num_hidden_layers is {layers}")
        return pattern
    kinds = config.get("layer_types") or ["attention"] * layers
    if len(kinds) != layers:
        raise InputError(f"config.json: layer_types has {len(kinds)} entries, num_hidden_layers is {layers}")
    mlp = "E" if config.get("num_local_experts") or config.get("num_experts") else "-"
    return "".join(("M" if kind == "mamba" else "*") + mlp for kind in kinds)


def _rope_theta(config: Mapping[str, Any]) -> float | None:
    if config.get("model_type") == "nemotron_h" or config.get("position_embedding_type", "rope") != "rope":
        return None
    nested = config.get("rope_parameters") or {}
    return float(nested.get("rope_theta") or config.get("rope_theta") or 10_000.0)


def _window(config: Mapping[str, Any]) -> int | None:
    return config.get("sliding_window") if config.get("use_sliding_window", True) else None


def _multipliers(config: Mapping[str, Any]) -> Multipliers | None:
    if config.get("residual_multiplier") is None:
        return None
    return Multipliers(
        embedding=float(config["embedding_multiplier"]),
        residual=float(config["residual_multiplier"]),
        attention=float(config["attention_multiplier"]),
        logits=float(config["logits_scaling"]),
    )


def _mamba(config: Mapping[str, Any]) -> MambaShape:
    names = ("n_heads", "d_head", "n_groups", "d_state", "d_conv", "chunk_size")
    keys = [f"mamba_{name}" for name in names]
    if config.get("model_type") == "nemotron_h":
        keys = ["mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel", "chunk_size"]
    heads, head_dim, groups, state, kernel, chunk = (_size(config, key) for key in keys)
    return MambaShape(heads=heads, head_dim=head_dim, groups=groups, state=state, conv_kernel=kernel, chunk=chunk)

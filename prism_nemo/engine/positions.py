"""Scaled rotary positions as config.json says, where Megatron-Bridge 0.6.2 would drop them or fail.

Bridge reads llama3 for LLaMA alone, with fixed constants, and yarn for few; a dropped scaling changes numbers without
an error. Here transformers computes the frequencies and Megatron-Core takes them.
"""

import copy
from typing import Any

from prism_nemo.errors import InputError

FIXED = ("linear", "llama3", "yarn")
"""Kinds whose frequencies do not depend on the sequence at hand."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Constants of core/models/common/embeddings/rotary_pos_embedding.py."""


def left_out(config: Any) -> tuple[Any, Any | None]:
    """(the configuration for Bridge, the one that `apply` takes the frequencies from or None when Bridge reads all).

    `config`: transformers' configuration. Raises InputError for a kind of scaling that changes with the sequence.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind == "default" or getattr(config, "position_embedding_type", "rope") == "nope" or _read_by_bridge(config):
        return config, None
    if kind not in FIXED:
        raise InputError(f"config.json: rope_type {kind!r} is not known here; one of default, {', '.join(FIXED)}")
    plain = copy.deepcopy(config)
    plain.rope_parameters = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
    return plain, config


def _read_by_bridge(config: Any) -> bool:
    rope = config.rope_parameters
    llama3 = rope["rope_type"] == "llama3" and all(rope.get(key) == value for key, value in LLAMA3.items())
    return config.model_type == "llama" and (rope["rope_type"] == "linear" or llama3)


def apply(provider: Any, config: Any) -> None:
    """Give the models of `provider` the frequencies and the attention factor of `config`'s scaling."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, factor = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](config, None)
    if factor != 1.0:
        provider.apply_rope_fusion = False  # the fused kernel for packed documents leaves the factor out
    provider.register_pre_wrap_hook(lambda stages: _set(stages, frequencies, factor))


def _set(stages: list[Any], frequencies: Any, factor: float) -> list[Any]:
    from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
    from megatron.core.transformer.attention import Attention

    for module in (module for stage in stages for module in stage.modules()):
        if isinstance(module, RotaryEmbedding):
            module.inv_freq = frequencies.to(module.inv_freq)
        elif isinstance(module, Attention):
            module._yarn_concentration_factor = factor
    return stages

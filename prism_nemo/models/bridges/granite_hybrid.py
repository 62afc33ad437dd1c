"""Megatron-Bridge for IBM Granite 4.0 without experts: GraniteMoeHybridForCausalLM <-> Megatron-Core's HybridModel.

`import prism_nemo.models.bridges.granite_hybrid` registers the bridge, in NeMo-RL too. Granite-4.0 Micro (all
attention, RoPE) and Granite-4.0-H Micro (Mamba and attention, no positions) are one Hugging Face class, so they are
one Megatron class: a Hugging Face layer is a mixer and an MLP, which HybridModel counts as two, `M-` or `*-`. The
multipliers are those of prism_nemo.models.bridges.granite.
"""

from collections.abc import Iterator
from typing import Any

import torch
from megatron.bridge.models.conversion.mapping_registry import MegatronMappingRegistry
from megatron.bridge.models.conversion.model_bridge import MegatronModelBridge
from megatron.bridge.models.conversion.param_mapping import (
    AutoMapping,
    ColumnParallelMapping,
    GatedMLPMapping,
    MambaConv1dMapping,
    MambaInProjMapping,
    MegatronParamMapping,
    QKVMapping,
    RowParallelMapping,
)
from megatron.bridge.models.hybrid.hybrid_provider import HybridModelProvider
from megatron.core.models.hybrid.hybrid_model import HybridModel
from transformers import GraniteMoeHybridForCausalLM

from prism_nemo.models.bridges.granite import RESIDUAL_MULTIPLIER, apply_multipliers, multipliers_to_hf

GATED_NORM_EPS = 1e-5
"""Hard-wired in megatron-core 0.19.2, ssm/mamba_mixer.py, for the gated norm; the Granite value."""
NO_LIMIT = (0.0, float("inf"))
"""Of the time step: Megatron takes it as it is."""


class FusedGateUpMapping(MegatronParamMapping[torch.Tensor]):
    """One tensor on both sides, gate rows first, then up rows; tensor parallel splits each half by itself."""

    def __init__(self, megatron_param: str, hf_param: str) -> None:
        super().__init__(megatron_param, hf_param)
        self._halves = GatedMLPMapping(megatron_param, f"{hf_param}.gate", f"{hf_param}.up")

    def hf_to_megatron(self, hf_weights: torch.Tensor, megatron_module: Any) -> torch.Tensor:
        if self.tp_size == 1:
            return hf_weights
        gate, up = hf_weights.chunk(2)
        return self._halves.hf_to_megatron({"gate": gate, "up": up}, megatron_module)

    def megatron_to_hf(self, megatron_weights: torch.Tensor | None, megatron_module: Any) -> dict[str, torch.Tensor]:
        halves = self._halves.megatron_to_hf(megatron_weights, megatron_module)
        if not halves:
            return {}
        return {self.hf_param: torch.cat([halves[f"{self.hf_param}.gate"], halves[f"{self.hf_param}.up"]])}


@MegatronModelBridge.register_bridge(
    source=GraniteMoeHybridForCausalLM,
    target=HybridModel,
    provider=HybridModelProvider,
    model_type="granitemoehybrid",
)
class GraniteHybridBridge(MegatronModelBridge):
    """Granite 4.0 Micro and H-Micro."""

    CONFIG_MAPPING = [  # noqa: RUF012 - upstream's attribute
        *(
            pair
            for pair in MegatronModelBridge.CONFIG_MAPPING
            if pair[0] not in ("num_hidden_layers", "intermediate_size")
        ),
        ("shared_intermediate_size", "ffn_hidden_size"),
        ("mamba_n_heads", "mamba_num_heads"),
        ("mamba_d_head", "mamba_head_dim"),
        ("mamba_n_groups", "mamba_num_groups"),
        ("mamba_d_state", "mamba_state_dim"),
        ("mamba_chunk_size", "mamba_chunk_size"),
    ]

    def provider_bridge(self, hf_pretrained: Any) -> Any:
        """The HybridModelProvider of a Granite 4.0 configuration.

        Raises ValueError for experts and for Mamba settings that megatron-core 0.19.2 hard-wires otherwise.
        """
        config = hf_pretrained.config
        _refuse_unsupported(config)
        provider = super().provider_bridge(hf_pretrained)
        provider.hybrid_layer_pattern = "".join(symbol + "-" for symbol in _mixers(config))
        provider.position_embedding_type = "rope" if config.position_embedding_type == "rope" else "none"
        provider.normalization = "RMSNorm"
        provider.gated_linear_unit = True
        provider.num_moe_experts = None
        provider.hidden_dropout = 0.0
        provider.is_hybrid_model = True
        apply_multipliers(provider, config)
        return provider

    @classmethod
    def megatron_to_hf_config(cls, provider: Any) -> dict[str, Any]:
        """The `config.json` fields of a provider."""
        config = super().megatron_to_hf_config(provider) | multipliers_to_hf(provider, RESIDUAL_MULTIPLIER)
        mixers = provider.hybrid_layer_pattern.replace("|", "")[::2]
        config["layer_types"] = ["mamba" if symbol == "M" else "attention" for symbol in mixers]
        config["num_hidden_layers"] = len(mixers)
        config["intermediate_size"] = config["shared_intermediate_size"]
        config["position_embedding_type"] = "rope" if provider.position_embedding_type == "rope" else "nope"
        config["num_local_experts"] = config["num_experts_per_tok"] = 0
        return config

    def mapping_registry(self) -> MegatronMappingRegistry:
        """Which tensors make which Megatron parameter; layer i is Megatron's 2i (mixer) and 2i + 1 (MLP)."""
        ends = {
            "embedding.word_embeddings.weight": "model.embed_tokens.weight",
            "output_layer.weight": "lm_head.weight",
            "decoder.final_norm.weight": "model.norm.weight",
        }
        mappings: list[Any] = [AutoMapping(megatron_param=ours, hf_param=theirs) for ours, theirs in ends.items()]
        for index, symbol in enumerate(_mixers(self.hf_config)):
            mixer, mlp, hf = f"decoder.layers.{2 * index}", f"decoder.layers.{2 * index + 1}", f"model.layers.{index}"
            mappings += _mamba(mixer, hf) if symbol == "M" else _attention(mixer, hf)
            mappings += _mlp(mlp, hf)
        return MegatronMappingRegistry(*mappings)


def _mixers(config: Any) -> str:
    """`M` or `*` per Hugging Face layer. Later releases of transformers spell "attention" "full_attention"."""
    return "".join("M" if kind == "mamba" else "*" for kind in config.layer_types)


def _refuse_unsupported(config: Any) -> None:
    faults = {
        f"num_local_experts is {config.num_local_experts}, experts are not supported": config.num_local_experts,
        f"position_embedding_type is {config.position_embedding_type!r}": (
            config.position_embedding_type not in ("rope", "nope", None)
        ),
    }
    if "mamba" in config.layer_types:
        faults |= {
            f"rms_norm_eps is {config.rms_norm_eps}, Megatron's gated norm has {GATED_NORM_EPS}": (
                config.rms_norm_eps != GATED_NORM_EPS
            ),
            "mamba_proj_bias is true": config.mamba_proj_bias,
            "mamba_conv_bias is false": not config.mamba_conv_bias,
            f"mamba_d_conv is {config.mamba_d_conv}, Megatron has 4": config.mamba_d_conv != 4,
            f"time_step_limit is {config.time_step_limit}, Megatron has none": (
                tuple(config.time_step_limit or NO_LIMIT) != NO_LIMIT
            ),
        }
    found = [fault for fault, present in faults.items() if present]
    if found:
        raise ValueError(f"this Granite cannot be represented in Megatron: {'; '.join(found)}")


def _attention(ours: str, hf: str) -> Iterator[Any]:
    yield AutoMapping(f"{ours}.self_attention.linear_qkv.layer_norm_weight", f"{hf}.input_layernorm.weight")
    yield QKVMapping(
        f"{ours}.self_attention.linear_qkv.weight",
        q=f"{hf}.self_attn.q_proj.weight",
        k=f"{hf}.self_attn.k_proj.weight",
        v=f"{hf}.self_attn.v_proj.weight",
    )
    yield AutoMapping(f"{ours}.self_attention.linear_proj.weight", f"{hf}.self_attn.o_proj.weight")


def _mamba(ours: str, hf: str) -> Iterator[Any]:
    yield AutoMapping(f"{ours}.mixer.in_proj.layer_norm_weight", f"{hf}.input_layernorm.weight")
    yield MambaInProjMapping(f"{ours}.mixer.in_proj.weight", f"{hf}.mamba.in_proj.weight")
    yield RowParallelMapping(f"{ours}.mixer.out_proj.weight", f"{hf}.mamba.out_proj.weight")
    for name in ("A_log", "D", "dt_bias", "norm.weight"):
        yield ColumnParallelMapping(f"{ours}.mixer.{name}", f"{hf}.mamba.{name}")
    for name in ("weight", "bias"):
        yield MambaConv1dMapping(f"{ours}.mixer.conv1d_{name}", f"{hf}.mamba.conv1d.{name}")
        yield MambaConv1dMapping(f"{ours}.mixer.conv1d.{name}", f"{hf}.mamba.conv1d.{name}")  # older Megatron-Core


def _mlp(ours: str, hf: str) -> Iterator[Any]:
    yield AutoMapping(f"{ours}.mlp.linear_fc1.layer_norm_weight", f"{hf}.post_attention_layernorm.weight")
    yield FusedGateUpMapping(f"{ours}.mlp.linear_fc1.weight", f"{hf}.shared_mlp.input_linear.weight")
    yield AutoMapping(f"{ours}.mlp.linear_fc2.weight", f"{hf}.shared_mlp.output_linear.weight")

"""Layer specs made of the plain-torch layers, and what they cannot do, said before a model is built."""

import functools
from typing import Any

import torch.nn.functional as F
from megatron.bridge.models.gpt_provider import default_layer_spec
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.hybrid.hybrid_block import HybridStack, HybridStackSubmodules
from megatron.core.ssm.mamba_layer import MambaLayer, MambaLayerSubmodules
from megatron.core.ssm.mamba_mixer import MambaMixer, MambaMixerSubmodules
from megatron.core.ssm.mlp_layer import MLPLayer
from megatron.core.tensor_parallel import RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules

from prism_nemo.engine.cpu import layers, mamba
from prism_nemo.engine.cpu.kernels import SwiGLU
from prism_nemo.engine.cpu.layers import TorchAttention, TorchLayerNormColumnParallelLinear, TorchNorm
from prism_nemo.errors import InputError

NO_CUDA_KERNELS: dict[str, Any] = {
    "gradient_accumulation_fusion": False,
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "masked_softmax_fusion": False,
    "apply_rope_fusion": False,
    "persist_layer_norm": False,
    "moe_permute_fusion": False,
    "cross_entropy_loss_fusion": False,
    "use_cpu_initialization": True,
}
"""Fields of a provider that ask for CUDA kernels."""


def apply(provider: Any) -> None:
    """Give a Megatron-Bridge model provider the plain-torch layers.

    Raises InputError for a model that these layers would compute wrongly or not at all.
    """
    _refuse_unsupported(provider)
    for name, value in NO_CUDA_KERNELS.items():
        if hasattr(provider, name):
            setattr(provider, name, value)
    layers.lend_rotary_embedding()
    provider.use_te_activation_func = _plain_swiglu(provider)  # take the activation from the spec: SwiGLU below
    if hasattr(provider, "hybrid_stack_spec"):
        mamba.lend()
        provider.hybrid_stack_spec = hybrid_stack_spec
    else:
        provider.transformer_layer_spec = gpt_block_spec


def _plain_swiglu(provider: Any) -> bool:
    plain = provider.activation_func_clamp_value is None and provider.glu_linear_offset == 0
    return plain and provider.gated_linear_unit and provider.activation_func is F.silu


def _refuse_unsupported(provider: Any) -> None:
    pattern = getattr(provider, "hybrid_layer_pattern", None)
    wanted = {
        # Nemotron-H configs state experts even when no layer of the pattern has any ("E").
        "mixture of experts": provider.num_moe_experts and (pattern is None or "E" in pattern),
        "multi-latent attention": provider.multi_latent_attention,
        "multi-token prediction": provider.mtp_num_layers,
        "attention dropout": provider.attention_dropout > 0,
        f"softmax_type {provider.softmax_type!r}": provider.softmax_type != "vanilla",
        "query-key layer scaling": provider.apply_query_key_layer_scaling,
        "fp8 or fp4": provider.fp8 or provider.fp4,
        "layers of its own kind": getattr(provider, "transformer_layer_spec", None)
        not in (None, default_layer_spec, gpt_block_spec),
    }
    unsupported = [name for name, used in wanted.items() if used]
    if unsupported:
        raise InputError(
            f"the model uses {', '.join(unsupported)}, which needs a GPU; the CPU engine has no such layer"
        )


def gpt_block_spec(config: Any, vp_stage: int | None = None) -> TransformerBlockSubmodules:
    """The layers of a GPTModel's pipeline stage and its final norm; for GPTModelProvider.transformer_layer_spec."""
    layer = ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            self_attention=_attention(config.qk_layernorm),
            self_attn_bda=get_bias_dropout_add,
            mlp=_mlp(),
            mlp_bda=get_bias_dropout_add,
        ),
    )
    count = get_num_layers_to_build(config, vp_stage=vp_stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * count, layer_norm=TorchNorm)


def hybrid_stack_spec(config: Any) -> ModuleSpec:
    """The stack of a HybridModel: Mamba, attention and MLP layers; for HybridModelProvider.hybrid_stack_spec."""
    mixer = ModuleSpec(
        module=MambaMixer,
        submodules=MambaMixerSubmodules(in_proj=TorchLayerNormColumnParallelLinear, out_proj=RowParallelLinear),
    )
    return ModuleSpec(
        module=TorchHybridStack,
        submodules=HybridStackSubmodules(
            mamba_layer=ModuleSpec(
                module=MambaLayer, submodules=MambaLayerSubmodules(mixer=mixer, mamba_bda=get_bias_dropout_add)
            ),
            attention_layer=ModuleSpec(
                module=TransformerLayer,
                submodules=TransformerLayerSubmodules(
                    self_attention=_attention(config.qk_layernorm), self_attn_bda=get_bias_dropout_add
                ),
            ),
            mlp_layer=ModuleSpec(
                module=MLPLayer,
                submodules=TransformerLayerSubmodules(mlp=_mlp(), mlp_bda=get_bias_dropout_add),
            ),
        ),
    )


class TorchHybridStack(HybridStack):
    """HybridStack whose final norm, hard-wired to Transformer Engine's, is TorchNorm."""

    def __init__(self, config: Any, submodules: Any, *, post_layer_norm: bool = True, **kwargs: Any) -> None:
        super().__init__(config, submodules, post_layer_norm=False, **kwargs)
        self.post_layer_norm = post_layer_norm
        if self.post_process and post_layer_norm:
            self.final_norm = TorchNorm(config, config.hidden_size, eps=config.layernorm_epsilon)


def _attention(qk_layernorm: bool) -> ModuleSpec:
    qk_norm = TorchNorm if qk_layernorm else IdentityOp
    return ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=TorchLayerNormColumnParallelLinear,
            core_attention=TorchAttention,
            linear_proj=RowParallelLinear,
            q_layernorm=qk_norm,
            k_layernorm=qk_norm,
        ),
    )


def _mlp() -> Any:
    submodules = MLPSubmodules(
        linear_fc1=TorchLayerNormColumnParallelLinear, linear_fc2=RowParallelLinear, activation_func=SwiGLU
    )
    return functools.partial(MLP.as_mlp_submodule, submodules=submodules)

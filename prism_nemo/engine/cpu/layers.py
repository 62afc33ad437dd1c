"""Plain-torch layers in place of Transformer Engine's, with the same parameter names.

`weight`, `layer_norm_weight`, `layer_norm_bias` are called as in Transformer Engine, so a checkpoint made with one
loads into the other. SwiGLU and squared-ReLU MLPs, RoPE and the row-parallel linear are Megatron-Core's own.
"""

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.common.embeddings.rope_utils import apply_rotary_pos_emb
from megatron.core.tensor_parallel import ColumnParallelLinear, gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.utils import is_layer_window_attention
from torch import Tensor, nn

from prism_nemo.engine.cpu.kernels import rms_norm, rotate


class TorchNorm(nn.Module):
    """RMSNorm or LayerNorm as the config says, for TENorm; unlike Megatron's own it allows sequence parallelism."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.config, self.eps = config, eps
        self.weight, self.bias = _norm_parameters(config, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return _normalize(x, self.config, self.weight, self.bias, self.eps)


class TorchLayerNormColumnParallelLinear(ColumnParallelLinear):
    """Norm, then column-parallel linear, for TELayerNormColumnParallelLinear.

    Megatron-Bridge tells the replicated layer_norm_* from the sharded weight by "LayerNormColumnParallelLinear" in the
    class name (bridge/models/conversion/param_mapping.py), so the name must keep it.
    """

    def __init__(self, input_size: int, output_size: int, *, config: Any, **kwargs: Any) -> None:
        super().__init__(input_size, output_size, config=config, **kwargs)
        self.layer_norm_weight, self.layer_norm_bias = _norm_parameters(config, input_size)

    def forward(self, x: Tensor, **kwargs: Any) -> Any:
        epsilon = self.config.layernorm_epsilon
        return super().forward(
            _normalize(x, self.config, self.layer_norm_weight, self.layer_norm_bias, epsilon), **kwargs
        )


def _norm_parameters(config: Any, size: int) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Weight and bias (None for RMSNorm), marked for the gradient reduction that sequence parallelism needs."""
    start = 0.0 if config.layernorm_zero_centered_gamma else 1.0
    weight = nn.Parameter(torch.full((size,), start, dtype=config.params_dtype))
    weight.sequence_parallel = config.sequence_parallel
    if config.normalization == "RMSNorm":
        return weight, None
    bias = nn.Parameter(torch.zeros(size, dtype=config.params_dtype))
    bias.sequence_parallel = config.sequence_parallel
    return weight, bias


def _normalize(x: Tensor, config: Any, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    if config.layernorm_zero_centered_gamma:
        weight = weight + 1
    if config.normalization == "RMSNorm":
        return rms_norm(x, weight, epsilon)
    return F.layer_norm(x, weight.shape, weight, bias, epsilon)


class TorchAttention(MegatronModule):
    """Causal self-attention on torch's scaled_dot_product_attention, for TEDotProductAttention.

    Knows sliding windows (config.window_size (left, 0): a query sees itself and `left` keys before it), packed
    sequences (PackedSeqParams, thd: a query sees its own document), and context parallelism (keys and values of all
    ranks are gathered). Refused where the model is built: dropout, softmax variants, key/value caches.
    """

    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        softmax_scale: float | None = None,
        pg_collection: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        self.softmax_scale = softmax_scale or 1.0 / math.sqrt(config.kv_channels)
        self.cp_group = pg_collection.cp if config.context_parallel_size > 1 else None
        windowed = is_layer_window_attention(config.window_size, config.window_attn_skip_freq, layer_number)
        self.window = config.window_size[0] if windowed else -1

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Any = None,
        **_: Any,
    ) -> Tensor:
        """query (s, b, heads, d), key and value (s, b, groups, d); without b when packed. Returns (s, b, heads*d)."""
        if attention_bias is not None or query.shape[0] != key.shape[0]:
            raise NotImplementedError("attention on the CPU: no bias, no key/value cache")
        packed = query.dim() == 3
        if packed:
            query, key, value = (t.unsqueeze(1) for t in (query, key, value))
        if self.cp_group is not None:
            key, value = (gather_from_sequence_parallel_region(t, group=self.cp_group) for t in (key, value))
        mask = self._mask(query.shape[0], attention_mask, packed_seq_params)
        query, key, value = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            scale=self.softmax_scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        out = out.permute(2, 0, 1, 3).flatten(2)
        return out.squeeze(1) if packed else out

    def _mask(self, length: int, attention_mask: Tensor | None, packed_seq_params: Any) -> Tensor | None:
        """True where a query (row) sees a key (column); None for plain causal attention."""
        if self.cp_group is not None:
            if packed_seq_params is not None:
                raise NotImplementedError("documents are not kept apart here under context parallelism")
            return _context_parallel_mask(length, self.cp_group.size(), self.cp_group.rank(), self.window)
        mask = _window_mask(length, self.window) if 0 <= self.window < length - 1 else None
        if packed_seq_params is not None:
            document = _document_of_token(packed_seq_params.cu_seqlens_q, length)
            mask = (_window_mask(length, length) if mask is None else mask) & (document[:, None] == document)
        if attention_mask is not None:  # Megatron's masks are True where attention is forbidden, (b or 1, 1, s, s)
            mask = ~attention_mask if mask is None else mask & ~attention_mask
        return mask


def lend_rotary_embedding() -> list[str]:
    """Let Megatron's attention rotate with `kernels.rotate` wherever that is the same; the name replaced."""
    from megatron.core.transformer import attention

    if attention.apply_rotary_pos_emb is not _rotary_embedding:
        attention.apply_rotary_pos_emb = _rotary_embedding
    return ["attention.apply_rotary_pos_emb"]


def _rotary_embedding(
    t: Tensor, freqs: Tensor, config: Any, cu_seqlens: Tensor | None = None, mscale: float = 1.0, **kwargs: Any
) -> Tensor:
    whole = (
        freqs.shape[-1] == t.shape[-1] and not config.rotary_interleaved and not kwargs.get("mla_rotary_interleaved")
    )
    plain = cu_seqlens is None and mscale == 1.0 and not config.multi_latent_attention
    if whole and plain and t.dtype in (torch.float32, torch.float64):
        return rotate(t, freqs)
    return apply_rotary_pos_emb(t, freqs, config, cu_seqlens, mscale, **kwargs)


@functools.lru_cache(maxsize=8)
def _window_mask(length: int, window: int) -> Tensor:
    position = torch.arange(length)
    return _sees(position, position, window)


@functools.lru_cache(maxsize=8)
def _context_parallel_mask(length: int, size: int, rank: int, window: int) -> Tensor:
    """Megatron gives rank r the sequence's chunks r and 2*size-1-r (core/utils.py, get_batch_on_this_cp_rank)."""
    chunks = torch.arange(length * size).chunk(2 * size)
    positions = [torch.cat([chunks[r], chunks[2 * size - 1 - r]]) for r in range(size)]
    return _sees(positions[rank], torch.cat(positions), window)


def _sees(query: Tensor, key: Tensor, window: int) -> Tensor:
    distance = query[:, None] - key
    return (distance >= 0) & (distance <= window) if window >= 0 else distance >= 0


def _document_of_token(cu_seqlens: Tensor, length: int) -> Tensor:
    return torch.searchsorted(cu_seqlens.flatten()[1:].contiguous(), torch.arange(length), right=True)

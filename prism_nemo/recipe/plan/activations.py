"""Bytes that the forward pass keeps for the backward pass, per sublayer.

What each kernel keeps: Transformer Engine's LayerNormLinear its input, the normalised input and the inverse deviation;
Linear its input; flash attention queries, keys, values, output and one number per head and token (values are a view
into the projection's output, so all of that stays; queries are copied out of it; keys only when they are rotated);
fused SwiGLU its input; squared ReLU the ReLU; mamba_ssm's split_conv1d_scan_combined its input and the scan's output,
everything between is computed again (mamba_ssm ops/triton/ssd_combined.py); the gated norm and out_proj their inputs.
Cf. Korthikanti et al. 2022 (arXiv 2205.05198), section 4, for the classic transformer without these kernels.

`plain` is what the engine's torch layers keep on a CPU, in fp32: measured against them in the tests.
"""

from dataclasses import dataclass

from prism_nemo.models.facts import MambaShape, Shape
from prism_nemo.recipe.plan.parameters import convolved, inner, projected


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How activations are kept on one rank."""

    tokens: int
    """Tokens of a micro batch on this rank: sequences x length / context parallel."""
    length: int
    """Tokens of one sequence on this rank."""
    tensor: int = 1
    """Ranks that share heads and MLP columns."""
    sequence: bool = False
    """Whether these ranks also share the tokens between the matrix products."""
    bytes: int = 2
    """Of an activation: 2 in bf16, 4 in fp32."""
    fp8: bool = False
    """Whether inputs of matrix products are kept in one byte."""
    plain: bool = False
    """Torch layers on a CPU in place of fused kernels."""

    @property
    def stream(self) -> int:
        """Ranks that share the residual stream."""
        return self.tensor if self.sequence else 1

    @property
    def input_bytes(self) -> int:
        """Of the input of a matrix product."""
        return 1 if self.fp8 else self.bytes


def stream_bytes(sizes: Shape, kept: Kept) -> int:
    """The residual stream of a micro batch on one rank: what full recomputation keeps of a layer."""
    return kept.tokens * sizes.hidden * kept.bytes // kept.stream


def sublayer_bytes(sizes: Shape, kind: str, kept: Kept) -> int:
    """Kept by one sublayer for one micro batch on one rank."""
    per_token = {"*": _attention, "-": _mlp, "M": _mamba}[kind](sizes, kept)
    return round(kept.tokens * (_norm(sizes.hidden, kept) + per_token))


def head_bytes(sizes: Shape, kept: Kept, vocab: int) -> int:
    """Final norm, and the logits with their fp32 softmax (core/fusions/fused_cross_entropy.py), of `vocab` columns."""
    logits = vocab / kept.tensor * (4 if kept.plain or kept.bytes == 4 else kept.bytes + 4)
    return round(kept.tokens * (_norm(sizes.hidden, kept, fp8=False) + logits))


def _norm(hidden: int, kept: Kept, *, fp8: bool = True) -> float:
    """Input, output and inverse deviation of the norm before a matrix product."""
    output = kept.input_bytes if fp8 else kept.bytes
    return (hidden * (kept.bytes + output) + 4) / kept.stream


def _attention(sizes: Shape, kept: Kept) -> float:
    width, both = sizes.heads * sizes.head_dim, 2 * sizes.kv_heads * sizes.head_dim
    rotated = both // 2 if sizes.rope_theta else 0
    shared = (width + both + width + rotated + width) * kept.bytes + 4 * sizes.heads
    if kept.fp8:
        shared += width  # the projection keeps its own copy of the output
    return shared / kept.tensor + (_plain_tables(sizes, kept) if kept.plain else 0)


def _plain_tables(sizes: Shape, kept: Kept) -> float:
    """Sine and cosine of every position, for queries and for keys; the mask of a sliding window as numbers."""
    rotary = 16 * sizes.head_dim * kept.length if sizes.rope_theta else 0
    mask = 4 * kept.length**2 if sizes.window and sizes.window < kept.length else 0
    return (rotary + mask) / kept.tokens


def _mlp(sizes: Shape, kept: Kept) -> float:
    before = 2 * sizes.ffn if sizes.gated else sizes.ffn
    if kept.plain and sizes.gated:
        before += sizes.ffn  # the activated half
    return (before * kept.bytes + sizes.ffn * kept.input_bytes) / kept.tensor


def _mamba(sizes: Shape, kept: Kept) -> float:
    mixer = sizes.mamba
    assert mixer is not None, "the model has no Mamba layers"
    if kept.plain:
        return _plain_mamba(mixer, kept)
    width = inner(mixer)
    both = (projected(mixer) + 2 * width) * kept.bytes + 4 * mixer.groups
    return (both + width * kept.input_bytes) / kept.tensor


def _plain_mamba(mixer: MambaShape, kept: Kept) -> float:
    """fp32, engine/cpu/mamba.py and models/ssd.py: between the projections nearly every product keeps both factors."""
    width, states = inner(mixer), mixer.groups * mixer.state
    chunk = min(mixer.chunk, kept.length)
    chunks = -(-kept.length // chunk)
    convolution = projected(mixer) + 2 * convolved(mixer)
    decays = 9 * mixer.heads
    inside = chunk * (2 * mixer.heads + mixer.groups) + 2 * states + width
    expanded = mixer.heads * mixer.state * (2 if chunks > 1 else 1)
    across = 4 * width + expanded + 2 * width * mixer.state / chunk
    out = 2 * width + 2 * width + width  # y and silu(z); gated norm; input of out_proj
    return 4 * (convolution + decays + inside + across + out) / kept.tensor

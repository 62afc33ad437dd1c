"""Floating-point operations of a model, matrix products only, 2 per multiply-add.

Sources: attention and MLP: Korthikanti et al. 2022 (arXiv 2205.05198), appendix A, with grouped queries, gated MLPs
and a causal or sliding mask; Mamba-2: Dao and Gu 2024 (arXiv 2405.21060), section 6, the chunked algorithm. Megatron
counts the scan as 7 per channel and state (bridge/training/utils/flop_utils.py, "should be updated"), which is another
number for the same small part of a layer. Tested against torch.utils.flop_counter.
"""

from prism_nemo.models.facts import MambaShape, Shape
from prism_nemo.recipe.plan.parameters import convolved, inner, projected


def seen(length: int, window: int | None, *, causal: bool = True) -> int:
    """Sum over the queries of a sequence of the keys each one sees (a plain square without `causal`)."""
    if not causal:
        return length * length
    reach = min(window or length, length)
    return reach * (reach + 1) // 2 + (length - reach) * reach


def attention(sizes: Shape, length: int, *, causal: bool = True) -> int:
    """Forward FLOPs of an attention sublayer over one sequence of `length` tokens."""
    width, both = sizes.heads * sizes.head_dim, 2 * sizes.kv_heads * sizes.head_dim
    return 2 * length * sizes.hidden * (2 * width + both) + attention_core(sizes, length, causal=causal)


def attention_core(sizes: Shape, length: int, *, causal: bool = True) -> int:
    """Of these the products of queries with keys and of their weights with values."""
    return 4 * seen(length, sizes.window, causal=causal) * sizes.heads * sizes.head_dim


def mlp(sizes: Shape, length: int) -> int:
    """Forward FLOPs of an MLP sublayer over one sequence."""
    return 2 * length * sizes.hidden * sizes.ffn * (3 if sizes.gated else 2)


def mamba(sizes: Shape, length: int) -> int:
    """Forward FLOPs of a Mamba-2 sublayer over one sequence."""
    mixer = sizes.mamba
    assert mixer is not None, "the model has no Mamba layers"
    projections = 2 * length * sizes.hidden * (projected(mixer) + inner(mixer))
    return projections + 2 * length * convolved(mixer) * mixer.conv_kernel + scan(mixer, length)


def scan(mixer: MambaShape, length: int) -> int:
    """Forward FLOPs of the chunked scan: C B^T per group, its product with x, the chunks' states, and their output.

    The last chunk counts in full, as it is computed.
    """
    chunk = min(mixer.chunk, length)
    tokens = -(-length // chunk) * chunk
    return 2 * tokens * (chunk * mixer.groups * mixer.state + chunk * inner(mixer) + 2 * inner(mixer) * mixer.state)


def forward(sizes: Shape, length: int, *, causal: bool = True) -> int:
    """Forward FLOPs of the whole model over one sequence, logits included."""
    per_kind = {"*": lambda: attention(sizes, length, causal=causal), "-": lambda: mlp(sizes, length)}
    per_kind["M"] = lambda: mamba(sizes, length)
    layers = sum(sizes.pattern.count(kind) * per_kind[kind]() for kind in set(sizes.pattern))
    return layers + 2 * length * sizes.hidden * sizes.vocab


def step(sizes: Shape, length: int, sequences: int) -> int:
    """Model FLOPs of one optimizer step: forward and twice as much backward; nothing for recomputation."""
    return 3 * forward(sizes, length) * sequences

"""How many parameters a rank holds. Megatron-Core's modules, tensor and pipeline parallel, no biases, RMSNorm.

Sources: core/transformer/attention.py (linear_qkv, linear_proj), core/transformer/mlp.py, core/ssm/mamba_mixer.py
(in_proj, conv1d, A_log, D, dt_bias, norm, out_proj), megatron-core 0.19.2. Tested against built models.
"""

from prism_nemo.models.facts import MambaShape, Shape


def sublayer(sizes: Shape, kind: str, tensor: int = 1) -> int:
    """Parameters of one sublayer (`*` attention, `-` MLP, `M` Mamba) on one tensor-parallel rank, its norm included."""
    if kind == "*":
        width = sizes.heads * sizes.head_dim
        both = 2 * sizes.kv_heads * sizes.head_dim
        return sizes.hidden + sizes.hidden * (2 * width + both) // tensor
    if kind == "-":
        return sizes.hidden + sizes.hidden * sizes.ffn * (3 if sizes.gated else 2) // tensor
    if kind == "M" and sizes.mamba is not None:
        mamba = sizes.mamba
        weights = sizes.hidden * (projected(mamba) + inner(mamba))
        small = convolved(mamba) * (mamba.conv_kernel + 1) + 3 * mamba.heads + inner(mamba)
        return sizes.hidden + (weights + small) // tensor
    raise ValueError(f"no parameter count for a sublayer of kind {kind!r}")


def inner(mamba: MambaShape) -> int:
    """Channels of the state-space model."""
    return mamba.heads * mamba.head_dim


def convolved(mamba: MambaShape) -> int:
    """Channels that go through the causal convolution: x, B and C."""
    return inner(mamba) + 2 * mamba.groups * mamba.state


def projected(mamba: MambaShape) -> int:
    """Columns of in_proj: z, x, B, C and dt."""
    return inner(mamba) + convolved(mamba) + mamba.heads


def stage_sublayers(sizes: Shape, pipeline: int) -> list[str]:
    """The sublayer symbols of each pipeline stage, first stage first."""
    length = len(sizes.pattern) // pipeline
    return [sizes.pattern[i * length : (i + 1) * length] for i in range(pipeline)]


def stage_parameters(sizes: Shape, *, tensor: int = 1, pipeline: int = 1) -> list[int]:
    """Parameters of one tensor-parallel rank in each pipeline stage; Megatron's padded vocabulary.

    With tied embeddings and pipeline parallelism the last stage holds a copy of the embedding.
    """
    embedding = sizes.padded_vocab(tensor) // tensor * sizes.hidden
    counts = [sum(sublayer(sizes, kind, tensor) for kind in symbols) for symbols in stage_sublayers(sizes, pipeline)]
    counts[0] += embedding
    counts[-1] += sizes.hidden + (0 if sizes.tied and pipeline == 1 else embedding)
    return counts


def total(sizes: Shape) -> int:
    """Parameters of the published model: true vocabulary, tied embeddings counted once."""
    layers = sum(sublayer(sizes, kind) for kind in sizes.pattern)
    return layers + sizes.hidden + sizes.vocab * sizes.hidden * (1 if sizes.tied else 2)

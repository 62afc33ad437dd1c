"""Names of a Megatron model's parameters, known without building it: what `trainable` patterns are searched in."""

from collections.abc import Iterator

from prism_nemo.models.facts import Shape, uses_hybrid_model

SUBLAYERS = {
    "*": ("self_attention.linear_proj", "self_attention.linear_qkv.layer_norm", "self_attention.linear_qkv"),
    "-": ("mlp.linear_fc1.layer_norm", "mlp.linear_fc1", "mlp.linear_fc2"),
    "M": ("mixer.in_proj.layer_norm", "mixer.in_proj", "mixer.norm", "mixer.out_proj"),
}
"""Megatron-Core 0.19.2 with its norms fused into the linear layers, as Transformer Engine has them."""
VECTORS = ("mixer.A_log", "mixer.D", "mixer.dt_bias", "mixer.conv1d_weight", "mixer.conv1d_bias")


def parameter_names(sizes: Shape) -> Iterator[str]:
    """Every parameter of the whole model (one pipeline stage), in no particular order; the seven bases have no biases.

    A norm in front of a linear layer is `...linear_qkv.layer_norm_weight`.
    """
    hybrid = uses_hybrid_model(sizes.model_type)
    yield "embedding.word_embeddings.weight"
    yield f"decoder.final_{'norm' if hybrid else 'layernorm'}.weight"
    if not sizes.tied:
        yield "output_layer.weight"
    for number, kinds in enumerate(sizes.pattern if hybrid else ["*-"] * sizes.layers):
        for kind in kinds:
            for name in SUBLAYERS[kind]:
                yield f"decoder.layers.{number}.{name}{'_' if name.endswith('layer_norm') else '.'}weight"
            if kind == "M":
                yield from (f"decoder.layers.{number}.{name}" for name in VECTORS)
